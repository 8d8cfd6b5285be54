"""Flavors, keypairs and servers: what may be asked of them, and how a server changes."""

from engine.domain.compute.build import create_server as create_server
from engine.domain.compute.evolve import evolve_server as evolve_server
from engine.domain.compute.evolve import server_changed as server_changed
from engine.domain.compute.evolve import server_created as server_created
from engine.domain.compute.evolve import server_deleted as server_deleted
from engine.domain.compute.evolve import server_placed as server_placed
from engine.domain.compute.flavor import create_flavor as create_flavor
from engine.domain.compute.flavor import delete_flavor as delete_flavor
from engine.domain.compute.flavor import flavor_created as flavor_created
from engine.domain.compute.flavor import flavor_deleted as flavor_deleted
from engine.domain.compute.keypair import create_keypair as create_keypair
from engine.domain.compute.keypair import delete_keypair as delete_keypair
from engine.domain.compute.keypair import keypair_created as keypair_created
from engine.domain.compute.keypair import keypair_deleted as keypair_deleted
from engine.domain.compute.server import delete_server as delete_server
from engine.domain.compute.server import gone as gone
from engine.domain.compute.server import own_server as own_server
from engine.domain.compute.server import ports_status as ports_status
from engine.domain.compute.server import reboot_server as reboot_server
from engine.domain.compute.server import rename_server as rename_server
from engine.domain.compute.server import server_ports as server_ports
from engine.domain.compute.server import start_server as start_server
from engine.domain.compute.server import stop_server as stop_server
