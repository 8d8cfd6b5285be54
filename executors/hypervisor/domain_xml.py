"""What a domain is, in libvirt's words (https://libvirt.org/formatdomain.html). Pure.

Built as a tree, so that no value can ever become markup. A domain tells in its own metadata under
which boot it was started, so that this can be read from whatever runs, and from nothing else.
"""

from xml.etree.ElementTree import Element, ParseError, SubElement, fromstring, tostring

from executors.hypervisor.accelerator import Accelerator
from executors.hypervisor.port import DomainSpec, Nic
from executors.layout import Layout, domain_uuid

METADATA_URI = "urn:cumulog:domain:1"
# How much translated code QEMU keeps. Its own default (1 GiB) would dwarf small guests.
_TB_CACHE_LEAST_MIB = 32
_TB_CACHE_MOST_MIB = 512


def domain_xml(spec: DomainSpec, *, layout: Layout, accelerator: Accelerator, emulator: str) -> str:
    """Return the domain of a server as XML."""
    domain = Element("domain", type="kvm" if accelerator == "kvm" else "qemu")
    _text(domain, "name", layout.domain(spec.server_id))
    _text(domain, "uuid", domain_uuid(spec.server_id))
    metadata = SubElement(domain, "metadata")
    SubElement(
        metadata, f"{{{METADATA_URI}}}server", {"boot": str(spec.boot), "id": spec.server_id}
    )
    _text(domain, "memory", str(spec.memory_mib), unit="MiB")
    _text(domain, "vcpu", str(spec.vcpus))
    system = SubElement(domain, "os")
    _text(system, "type", "hvm", arch="x86_64", machine="pc")
    SubElement(system, "boot", dev="hd")
    SubElement(domain, "cpu", mode="host-passthrough" if accelerator == "kvm" else "maximum")
    _features(domain, spec, accelerator)
    SubElement(domain, "clock", offset="utc")
    for event, action in (("poweroff", "destroy"), ("reboot", "restart"), ("crash", "destroy")):
        _text(domain, f"on_{event}", action)
    _devices(domain, spec, emulator)
    return tostring(domain, encoding="unicode")


def boot_of(metadata: str) -> int:
    """Return the boot that a domain's metadata element tells, 0 if it tells none."""
    try:
        return int(fromstring(metadata).get("boot", "0"))  # noqa: S314  # our own words, by libvirt
    except (ParseError, ValueError):
        return 0


def _features(domain: Element, spec: DomainSpec, accelerator: Accelerator) -> None:
    features = SubElement(domain, "features")
    SubElement(features, "acpi")
    SubElement(features, "apic")
    if accelerator == "tcg":
        size_mib = min(_TB_CACHE_MOST_MIB, max(_TB_CACHE_LEAST_MIB, spec.memory_mib // 4))
        _text(SubElement(features, "tcg"), "tb-cache", str(size_mib), unit="MiB")


def _devices(domain: Element, spec: DomainSpec, emulator: str) -> None:
    devices = SubElement(domain, "devices")
    _text(devices, "emulator", emulator)
    if spec.disk:
        disk = SubElement(devices, "disk", type="file", device="disk")
        SubElement(disk, "driver", name="qemu", type="qcow2", discard="unmap")
        SubElement(disk, "source", file=spec.disk)
        SubElement(disk, "target", dev="vda", bus="virtio")
    for nic in spec.nics:
        _interface(devices, nic)
    serial = SubElement(devices, "serial", type="pty")
    SubElement(serial, "log", file=spec.console, append="on")
    SubElement(serial, "target", port="0")
    channel = SubElement(devices, "channel", type="unix")
    SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    random = SubElement(devices, "rng", model="virtio")
    _text(random, "backend", "/dev/urandom", model="random")
    SubElement(devices, "memballoon", model="virtio")


def _interface(devices: Element, nic: Nic) -> None:
    interface = SubElement(devices, "interface", type="bridge")
    SubElement(interface, "source", bridge=nic.bridge)
    SubElement(interface, "mac", address=nic.mac_address)
    SubElement(interface, "mtu", size=str(nic.mtu))
    SubElement(interface, "target", dev=nic.tap)
    SubElement(interface, "model", type="virtio")
    # In QEMU itself: vhost-net is not everywhere, and opens nothing outside the namespace.
    SubElement(interface, "driver", name="qemu")


def _text(parent: Element, tag: str, text: str, **attributes: str) -> Element:
    element = SubElement(parent, tag, attributes)
    element.text = text
    return element
