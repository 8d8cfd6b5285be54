"""What a domain is made of, how it is named, and when KVM is believed."""

import shutil
from xml.etree.ElementTree import fromstring

import pytest

from executors.errors import HypervisorError
from executors.hypervisor import accelerator
from executors.hypervisor.domain_xml import METADATA_URI, boot_of, domain_xml
from executors.hypervisor.libvirt_host import _logged_cause
from executors.hypervisor.port import DomainSpec, Nic
from executors.layout import Layout, bridge_name, dhcp_link_name, tap_name
from tests.executors.golden import matches

NIC = Nic(
    tap="tap-0123456789a", bridge="br-0123456789ab", mac_address="fa:16:3e:00:00:01", mtu=1450
)
SPEC = DomainSpec(
    server_id="11111111-2222-4333-8444-555555555555",
    boot=3,
    vcpus=2,
    memory_mib=512,
    disk="/srv/cloud/host/servers/s/disk.qcow2",
    console="/srv/cloud/host/servers/s/console.log",
    nics=(NIC,),
)
LAYOUT = Layout.of("/srv/cloud")


def pretty(xml):
    from xml.etree.ElementTree import indent, tostring

    tree = fromstring(xml)
    indent(tree)
    return tostring(tree, encoding="unicode") + "\n"


@pytest.mark.parametrize("kind", ["tcg", "kvm"])
def test_a_domain(kind):
    xml = domain_xml(SPEC, layout=LAYOUT, accelerator=kind, emulator="/usr/bin/qemu-system-x86_64")
    matches(f"domain-{kind}.xml", pretty(xml))


def test_values_never_become_markup():
    from dataclasses import replace

    odd = replace(SPEC, disk="/a'\"<b>&/disk")
    xml = domain_xml(odd, layout=LAYOUT, accelerator="tcg", emulator="q")
    assert fromstring(xml).find("devices/disk/source").get("file") == "/a'\"<b>&/disk"


@pytest.mark.parametrize(
    ("metadata", "boot"),
    [
        (f'<server xmlns="{METADATA_URI}" boot="12" id="s"/>', 12),
        ("<server/>", 0),
        ("<server boot='x'/>", 0),
        ("", 0),
    ],
)
def test_a_domain_tells_its_boot(metadata, boot):
    assert boot_of(metadata) == boot


def test_names_fit_the_kernel_and_differ_between_clouds():
    one, other = Layout.of("/srv/a"), Layout.of("/srv/b")
    network_id = "11111111-2222-4333-8444-555555555555"

    assert one.prefix != other.prefix
    assert Layout.of("/srv/../srv/a").prefix == one.prefix
    assert one.server_of(one.domain("s-1")) == "s-1"
    assert one.server_of(other.domain("s-1")) is None
    for name in (bridge_name, tap_name, dhcp_link_name):
        assert len(name(network_id)) == 15
        assert name("not a uuid") != name("nor this")


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        ("x: starting up libvirt\nx: shutting down, reason=shutdown\n", "guest"),
        ("x: shutting down, reason=crashed\n", "crash"),
        ("x: shutting down, reason=destroyed\n", "host"),
        ("x: shutting down, reason=shutdown\nx: starting up libvirt\n", "host"),
        ("", "host"),
    ],
)
def test_a_log_tells_why_a_domain_ended(tmp_path, log, cause):
    (tmp_path / "d.log").write_text(log)
    assert _logged_cause(tmp_path / "d.log") == cause
    assert _logged_cause(tmp_path / "none.log") == "host"


needs_qemu = pytest.mark.skipif(
    shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"
)


@needs_qemu
def test_the_probe_sees_a_guest_run_and_one_that_does_not(monkeypatch):
    assert accelerator.boots("tcg", deadline_s=60)
    monkeypatch.setattr(accelerator, "_SECTOR", b"\xeb\xfe".ljust(510, b"\0") + b"\x55\xaa")
    assert not accelerator.boots("tcg", deadline_s=3)


@needs_qemu
@pytest.mark.parametrize(
    ("wanted", "useful", "found"),
    [("tcg", True, "tcg"), ("auto", True, "kvm"), ("auto", False, "tcg"), ("kvm", True, "kvm")],
)
def test_kvm_is_used_only_where_it_was_seen_to_work(tmp_path, monkeypatch, wanted, useful, found):
    monkeypatch.setattr(accelerator.os, "access", lambda *_: True)
    monkeypatch.setattr(accelerator, "kvm_is_useful", lambda: useful)
    layout = Layout.of(tmp_path)
    assert accelerator.choose(layout, wanted) == found

    # The answer is kept until the machine starts anew.
    monkeypatch.setattr(accelerator, "kvm_is_useful", lambda: not useful)
    assert accelerator.choose(layout, wanted) == found


@needs_qemu
def test_kvm_asked_for_and_not_there_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(accelerator, "kvm_is_useful", lambda: False)
    with pytest.raises(HypervisorError, match="does not start under KVM"):
        accelerator.choose(Layout.of(tmp_path), "kvm")
