"""Images are what they say, or are refused with a reason; disks come and go whole."""

import hashlib
import json
import os
import shutil
import struct
import subprocess

import pytest

from executors.commands import run
from executors.errors import ImageRefused, StorageError
from executors.layout import Layout
from executors.storage.blob import BlobError, BlobMissing, Blobs, BlobTooLarge
from executors.storage.check import check_content
from executors.storage.console import read_console, trim_console
from executors.storage.content import recognize
from executors.storage.files import FileStorage
from tests.executors.world import an_image

MIB = 1 << 20
needs_qemu = pytest.mark.skipif(
    shutil.which("qemu-img") is None, reason="qemu-img is not installed"
)


def qemu_img(*arguments):
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, capture_output=True)


def raw(path, size=4 * MIB):
    path.write_bytes(os.urandom(size))
    return path


def qcow2(path, size=4 * MIB, *options):
    plain = raw(path.with_suffix(".raw"), size)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", *options, plain, path)
    return path


def patched(path, offset, data):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
    return path


def backed(path):
    outside = raw(path.with_name("outside.raw"))
    qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", outside, path)
    return path


def with_data_file(path):
    outside = path.with_name("outside.data")
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={outside},data_file_raw=on", path, "4M")
    return path


def encrypted(path):
    secret = "secret,id=s,data=abc"
    options = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"
    for attempt in range(20):
        try:
            qemu_img("create", "--object", secret, "-f", "qcow2", "-o", options, path, "4M")
            break
        except subprocess.CalledProcessError as error:
            # It measures how long a passphrase takes, and a busy machine does not let it.
            if b"accurate CPU usage" not in error.stderr or attempt == 19:
                raise
    return path


def converted(path, kind):
    plain = raw(path.with_suffix(".raw"))
    qemu_img("convert", "-f", "raw", "-O", kind, plain, path)
    return path


def truncated(path, keep):
    qcow2(path)
    os.truncate(path, int(path.stat().st_size * keep))
    return path


def empty(path):
    path.touch()
    return path


def huge(path):
    qemu_img("create", "-f", "qcow2", path, "8T")
    return path


def descriptor(path):
    path.write_text(
        '# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\n'
        'RW 8192 FLAT "/etc/shadow" 0\n'
    )
    return path


GOOD = [
    ("qcow2", qcow2, 4 * MIB),
    ("qcow2", lambda p: qcow2(p, 4 * MIB, "-c"), 4 * MIB),
    ("qcow2", lambda p: qcow2(p, 4 * MIB, "-o", "compat=0.10"), 4 * MIB),
    ("raw", raw, 4 * MIB),
]

BAD = [
    ("qcow2", empty, "empty"),
    ("raw", empty, "empty"),
    ("qcow2", backed, "backing file"),
    ("qcow2", with_data_file, "another file"),
    ("qcow2", encrypted, "encrypted"),
    ("qcow2", raw, "its content is raw"),
    ("raw", qcow2, "its content is qcow2"),
    ("qcow2", lambda p: converted(p, "vmdk"), "its content is vmdk"),
    ("raw", lambda p: converted(p, "vmdk"), "its content is vmdk"),
    ("raw", lambda p: converted(p, "vdi"), "its content is vdi"),
    ("raw", lambda p: converted(p, "vhdx"), "its content is vhdx"),
    ("raw", descriptor, "its content is vmdk"),
    ("qcow2", lambda p: truncated(p, 0.5), "truncated"),
    ("qcow2", lambda p: truncated(p, 0.9), "truncated"),
    ("qcow2", lambda p: truncated(p, 0.00001), "truncated"),
    ("qcow2", lambda p: patched(qcow2(p), 4, struct.pack(">I", 9)), "version 9"),
    ("qcow2", lambda p: patched(qcow2(p), 20, struct.pack(">I", 60)), "damaged"),
    ("qcow2", lambda p: patched(qcow2(p), 72, struct.pack(">Q", 1 << 40)), "features"),
    ("qcow2", lambda p: patched(qcow2(p), 72, struct.pack(">Q", 1 << 1)), "corrupt"),
    ("qcow2", lambda p: patched(qcow2(p), 24, struct.pack(">Q", 1 << 60)), ""),
    ("qcow2", huge, "larger than allowed"),
]


@needs_qemu
@pytest.mark.parametrize(("declared", "make", "size"), GOOD)
def test_a_good_image_tells_its_size(tmp_path, declared, make, size):
    found = check_content(make(tmp_path / "i.img"), declared, virtual_size_max_bytes=1 << 42)

    assert found == size


@needs_qemu
@pytest.mark.parametrize(("declared", "make", "why"), BAD)
def test_a_bad_image_is_refused_with_its_reason(tmp_path, declared, make, why):
    with pytest.raises(ImageRefused) as refused:
        check_content(make(tmp_path / "i.img"), declared, virtual_size_max_bytes=1 << 42)

    assert why in str(refused.value)
    assert str(tmp_path) not in str(refused.value)


def test_a_beginning_too_short_for_any_signature_is_raw():
    assert recognize(b"") == "raw"
    assert recognize(b"Q") == "raw"


# Blobs


async def chunks(*parts):
    for part in parts:
        yield part


async def test_a_blob_comes_back_as_it_was(tmp_path):
    blobs = Blobs(tmp_path / "blobs")
    content = os.urandom(3 * MIB + 7)
    written = await blobs.write(chunks(content[:5], content[5:]), limit_bytes=10 * MIB)

    assert written.size_bytes == len(content)
    assert written.md5 == hashlib.md5(content).hexdigest()
    assert written.sha512 == hashlib.sha512(content).hexdigest()
    async with blobs.open(written.blob_id) as blob:
        assert b"".join([c async for c in blob.read()]) == content
        assert b"".join([c async for c in blob.read(3, 9)]) == content[3:9]
    assert await blobs.ids() == [written.blob_id]


async def failing():
    yield b"abc"
    raise ConnectionResetError


@pytest.mark.parametrize(
    ("stream", "error"),
    [(lambda: chunks(b"12345", b"6"), BlobTooLarge), (failing, ConnectionResetError)],
)
async def test_a_write_that_fails_leaves_nothing(tmp_path, stream, error):
    blobs = Blobs(tmp_path / "blobs")
    with pytest.raises(error):
        await blobs.write(stream(), limit_bytes=5)

    assert list((tmp_path / "blobs").iterdir()) == []


@pytest.mark.parametrize("blob_id", ["", "../x", "a/b", ".hidden", "a" * 129, "ü"])
async def test_an_id_that_could_name_another_place_is_refused(tmp_path, blob_id):
    with pytest.raises(BlobError):
        await Blobs(tmp_path).delete(blob_id)


async def test_a_deleted_blob_is_gone_and_can_be_deleted_again(tmp_path):
    blobs = Blobs(tmp_path)
    written = await blobs.write(chunks(b"x"), limit_bytes=1)

    assert await blobs.delete(written.blob_id)
    assert not await blobs.delete(written.blob_id)
    with pytest.raises(BlobMissing):
        async with blobs.open(written.blob_id):
            pass


# Disks


async def stored(layout, path, disk_format="qcow2"):
    async def stream():
        yield path.read_bytes()

    written = await Blobs(layout.blobs).write(stream(), limit_bytes=1 << 30)
    return an_image(
        blob_id=written.blob_id,
        disk_format=disk_format,
        size_bytes=written.size_bytes,
        sha512=written.sha512,
        virtual_size_bytes=None,
    )


@pytest.fixture
async def storage(tmp_path):
    storage = FileStorage(Layout.of(tmp_path / "state"))
    await storage.start()
    return storage


@needs_qemu
@pytest.mark.parametrize("disk_format", ["qcow2", "raw"])
async def test_a_disk_is_made_once_on_its_cached_image(tmp_path, storage, disk_format):
    layout = Layout.of(tmp_path / "state")
    make = qcow2 if disk_format == "qcow2" else raw
    image = await stored(layout, make(tmp_path / "i.img"), disk_format)
    await storage.ensure_image(image)
    await storage.ensure_image(image)

    assert await storage.ensure_disk("s1", image, 1)
    assert not await storage.ensure_disk("s1", image, 1)
    assert await storage.servers() == {"s1"}
    assert await storage.evict(frozenset()) == ()  # a disk stands on it
    await storage.remove("s1")
    await storage.remove("s1")
    assert await storage.servers() == set()
    assert await storage.evict(frozenset()) == (image.blob_id,)
    assert list(layout.images.iterdir()) == []


@needs_qemu
async def test_a_disk_that_a_resize_grew_comes_back_as_it_was_or_stays(tmp_path, storage):
    """Each step may be repeated: an agent may have been killed after any of them."""
    layout = Layout.of(tmp_path / "state")
    image = await stored(layout, qcow2(tmp_path / "i.img"))
    await storage.ensure_image(image)
    await storage.ensure_disk("s1", image, 1)
    disk = layout.disk("s1")

    def seen() -> tuple[int, list[str]]:
        size = json.loads(run(["qemu-img", "info", "--output=json", str(disk)], deadline_s=30))
        check = run(["qemu-img", "check", "-q", "-f", "qcow2", str(disk)], deadline_s=30)
        assert check == ""
        return size["virtual-size"] >> 30, sorted(x.name for x in disk.parent.glob("*aside*"))

    before = disk.read_bytes()
    for _ in range(2):
        await storage.fit_disk("s1", 2, 5, revertible=True)
        assert seen() == (2, ["5.aside.qcow2"])
    for _ in range(2):  # reverted, or failed
        await storage.fit_disk("s1", 1, 0, revertible=False)
        assert seen() == (1, [])
    assert disk.read_bytes() == before
    (disk.parent / "7.aside.part").write_bytes(b"half a copy")
    await storage.fit_disk("s1", 2, 7, revertible=True)
    assert seen() == (2, ["7.aside.qcow2"])
    # Confirmed while nobody looked, then resized once more: the older copy is no way back.
    await storage.fit_disk("s1", 3, 9, revertible=True)
    assert seen() == (3, ["9.aside.qcow2"])
    await storage.fit_disk("s1", 2, 7, revertible=False)
    assert seen() == (2, [])
    await storage.fit_disk("s1", 3, 11, revertible=True)
    for _ in range(2):  # confirmed
        await storage.let_go("s1", 11)
        assert seen() == (3, [])


@needs_qemu
async def test_a_disk_of_no_given_size_is_as_large_as_its_image(tmp_path, storage):
    image = await stored(Layout.of(tmp_path / "state"), qcow2(tmp_path / "i.img"))
    await storage.ensure_image(image)
    await storage.ensure_disk("s1", image, 0)

    said = run(["qemu-img", "info", "--output=json", storage.disk_path("s1")], deadline_s=30)
    assert '"virtual-size": 4194304' in said


@needs_qemu
async def test_an_image_that_does_not_fit_says_by_how_much(tmp_path, storage):
    big = tmp_path / "i.img"
    qemu_img("create", "-f", "qcow2", big, f"{1024 + 3}M")
    image = await stored(Layout.of(tmp_path / "state"), big)
    await storage.ensure_image(image)

    with pytest.raises(StorageError, match="3 MiB too large"):
        await storage.ensure_disk("s1", image, 1)
    assert await storage.servers() == set()


@needs_qemu
async def test_content_that_changed_since_the_upload_is_refused(tmp_path, storage):
    layout = Layout.of(tmp_path / "state")
    image = await stored(layout, qcow2(tmp_path / "i.img"))
    path = layout.blobs / image.blob_id
    path.chmod(0o600)
    patched(path, 200_000, b"changed")

    with pytest.raises(ImageRefused, match="not what was uploaded"):
        await storage.check(image)
    assert list(layout.images.iterdir()) == []


async def test_a_blob_that_is_not_there_is_said_so(storage):
    with pytest.raises(StorageError, match="not on this host"):
        await storage.ensure_image(an_image(blob_id="gone"))


# Consoles


def test_a_console_is_read_from_its_end(tmp_path):
    path = tmp_path / "console.log"
    path.write_bytes(b"one\ntwo\n\xff three\n")

    assert read_console(path, 2) == "two\n\N{REPLACEMENT CHARACTER} three\n"
    assert read_console(path, 0) == ""
    assert read_console(path, None).startswith("one\n")


def test_a_console_that_grew_too_long_keeps_its_end_and_its_writer(tmp_path):
    path = tmp_path / "console.log"
    with path.open("ab", buffering=0) as guest:
        guest.write(b"x" * (5 * MIB) + b"\nlast words\n")
        trim_console(path)
        guest.write(b"and more\n")

    assert path.stat().st_size == len(b"and more\n")
    assert read_console(path, 2) == "last words\nand more\n"
