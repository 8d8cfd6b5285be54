"""Money: which prices there are, who pays, which months are closed."""

from engine.domain.billing.customers import assign_project as assign_project
from engine.domain.billing.customers import create_customer as create_customer
from engine.domain.billing.customers import credit_granted as credit_granted
from engine.domain.billing.customers import customer_saved as customer_saved
from engine.domain.billing.customers import grant_credit as grant_credit
from engine.domain.billing.customers import project_assigned as project_assigned
from engine.domain.billing.customers import update_customer as update_customer
from engine.domain.billing.periods import billing_set as billing_set
from engine.domain.billing.periods import close_period as close_period
from engine.domain.billing.periods import correct_line as correct_line
from engine.domain.billing.periods import invoice_issued as invoice_issued
from engine.domain.billing.periods import invoice_voided as invoice_voided
from engine.domain.billing.periods import issue_invoice as issue_invoice
from engine.domain.billing.periods import line_corrected as line_corrected
from engine.domain.billing.periods import period_closed as period_closed
from engine.domain.billing.periods import set_billing as set_billing
from engine.domain.billing.periods import void_invoice as void_invoice
from engine.domain.billing.prices import in_force as in_force
from engine.domain.billing.prices import list_of as list_of
from engine.domain.billing.prices import price_list_published as price_list_published
from engine.domain.billing.prices import publish_price_list as publish_price_list
