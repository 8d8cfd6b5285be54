"""Identity: who there is, and what roles they have where."""

from engine.domain.identity.access import actor_roles as actor_roles
from engine.domain.identity.access import effective_roles as effective_roles
from engine.domain.identity.application_credential import access_rule_created as access_rule_created
from engine.domain.identity.application_credential import access_rule_deleted as access_rule_deleted
from engine.domain.identity.application_credential import (
    application_credential_created as application_credential_created,
)
from engine.domain.identity.application_credential import (
    application_credential_deleted as application_credential_deleted,
)
from engine.domain.identity.application_credential import (
    create_application_credential as create_application_credential,
)
from engine.domain.identity.application_credential import delete_access_rule as delete_access_rule
from engine.domain.identity.application_credential import (
    delete_application_credential as delete_application_credential,
)
from engine.domain.identity.bootstrap import bootstrap as bootstrap
from engine.domain.identity.catalog import create_endpoint as create_endpoint
from engine.domain.identity.catalog import create_region as create_region
from engine.domain.identity.catalog import create_service as create_service
from engine.domain.identity.catalog import delete_endpoint as delete_endpoint
from engine.domain.identity.catalog import delete_region as delete_region
from engine.domain.identity.catalog import delete_service as delete_service
from engine.domain.identity.catalog import endpoint_deleted as endpoint_deleted
from engine.domain.identity.catalog import endpoint_saved as endpoint_saved
from engine.domain.identity.catalog import region_deleted as region_deleted
from engine.domain.identity.catalog import region_saved as region_saved
from engine.domain.identity.catalog import service_deleted as service_deleted
from engine.domain.identity.catalog import service_saved as service_saved
from engine.domain.identity.catalog import update_endpoint as update_endpoint
from engine.domain.identity.catalog import update_region as update_region
from engine.domain.identity.catalog import update_service as update_service
from engine.domain.identity.credential import create_credential as create_credential
from engine.domain.identity.credential import credential_deleted as credential_deleted
from engine.domain.identity.credential import credential_saved as credential_saved
from engine.domain.identity.credential import delete_credential as delete_credential
from engine.domain.identity.credential import update_credential as update_credential
from engine.domain.identity.domain import create_domain as create_domain
from engine.domain.identity.domain import delete_domain as delete_domain
from engine.domain.identity.domain import domain_deleted as domain_deleted
from engine.domain.identity.domain import domain_saved as domain_saved
from engine.domain.identity.domain import update_domain as update_domain
from engine.domain.identity.federation import (
    create_identity_provider as create_identity_provider,
)
from engine.domain.identity.federation import (
    create_mapping as create_mapping,
)
from engine.domain.identity.federation import (
    create_protocol as create_protocol,
)
from engine.domain.identity.federation import (
    delete_identity_provider as delete_identity_provider,
)
from engine.domain.identity.federation import (
    delete_mapping as delete_mapping,
)
from engine.domain.identity.federation import (
    delete_protocol as delete_protocol,
)
from engine.domain.identity.federation import (
    federated_user_signed_in as federated_user_signed_in,
)
from engine.domain.identity.federation import (
    identity_provider_deleted as identity_provider_deleted,
)
from engine.domain.identity.federation import (
    identity_provider_saved as identity_provider_saved,
)
from engine.domain.identity.federation import (
    mapping_deleted as mapping_deleted,
)
from engine.domain.identity.federation import (
    mapping_saved as mapping_saved,
)
from engine.domain.identity.federation import (
    protocol_deleted as protocol_deleted,
)
from engine.domain.identity.federation import (
    protocol_saved as protocol_saved,
)
from engine.domain.identity.federation import (
    sign_in_federated as sign_in_federated,
)
from engine.domain.identity.federation import (
    update_identity_provider as update_identity_provider,
)
from engine.domain.identity.federation import (
    update_mapping as update_mapping,
)
from engine.domain.identity.federation import (
    update_protocol as update_protocol,
)
from engine.domain.identity.group import add_group_member as add_group_member
from engine.domain.identity.group import create_group as create_group
from engine.domain.identity.group import delete_group as delete_group
from engine.domain.identity.group import group_deleted as group_deleted
from engine.domain.identity.group import group_member_added as group_member_added
from engine.domain.identity.group import group_member_removed as group_member_removed
from engine.domain.identity.group import group_saved as group_saved
from engine.domain.identity.group import remove_group_member as remove_group_member
from engine.domain.identity.group import update_group as update_group
from engine.domain.identity.project import create_project as create_project
from engine.domain.identity.project import delete_project as delete_project
from engine.domain.identity.project import project_deleted as project_deleted
from engine.domain.identity.project import project_saved as project_saved
from engine.domain.identity.project import update_project as update_project
from engine.domain.identity.role import create_role as create_role
from engine.domain.identity.role import delete_role as delete_role
from engine.domain.identity.role import end_role_implication as end_role_implication
from engine.domain.identity.role import grant_role as grant_role
from engine.domain.identity.role import imply_role as imply_role
from engine.domain.identity.role import revoke_role as revoke_role
from engine.domain.identity.role import role_deleted as role_deleted
from engine.domain.identity.role import role_granted as role_granted
from engine.domain.identity.role import role_implication_ended as role_implication_ended
from engine.domain.identity.role import role_implied as role_implied
from engine.domain.identity.role import role_revoked as role_revoked
from engine.domain.identity.role import role_saved as role_saved
from engine.domain.identity.role import update_role as update_role
from engine.domain.identity.trust import create_trust as create_trust
from engine.domain.identity.trust import delete_trust as delete_trust
from engine.domain.identity.trust import trust_created as trust_created
from engine.domain.identity.trust import trust_deleted as trust_deleted
from engine.domain.identity.trust import trust_used as trust_used
from engine.domain.identity.trust import use_trust as use_trust
from engine.domain.identity.user import create_user as create_user
from engine.domain.identity.user import delete_user as delete_user
from engine.domain.identity.user import password_policy_set as password_policy_set
from engine.domain.identity.user import revoke_token as revoke_token
from engine.domain.identity.user import set_password_policy as set_password_policy
from engine.domain.identity.user import token_revoked as token_revoked
from engine.domain.identity.user import update_user as update_user
from engine.domain.identity.user import user_deleted as user_deleted
from engine.domain.identity.user import user_saved as user_saved
