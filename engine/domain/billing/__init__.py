"""Money: which prices there are, who pays, which months are closed."""

from engine.domain.billing.prices import in_force as in_force
from engine.domain.billing.prices import price_list_published as price_list_published
from engine.domain.billing.prices import publish_price_list as publish_price_list
