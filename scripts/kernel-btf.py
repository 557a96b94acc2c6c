#!/usr/bin/env python3
"""Takes the BTF type information out of a kernel image.

usage: kernel-btf.py VMLINUZ OUT

The image may be a bzImage (x86), a plain or compressed arm64 Image or an EFI zboot image. Only a few of these hold an
ELF file, so the BTF blob is found by its own header, in the image itself or in a compressed stream inside it.
"""

import struct
import subprocess
import sys

BTF_HEADER = struct.Struct("<HBBIIIII")
# magic 0xeB9F, version 1, flags 0, header length 24 (include/uapi/linux/btf.h).
BTF_START = b"\x9f\xeb\x01\x00\x18\x00\x00\x00"

# First bytes of a stream and the program that reads it. The programs' status is ignored: what follows the stream in
# the image is not theirs, and they complain about it after the last good byte.
STREAMS = [
    (b"\x1f\x8b\x08", ["gzip", "-dc"]),
    (b"\xfd7zXZ\x00", ["xz", "-dc", "--single-stream"]),
    (b"\x28\xb5\x2f\xfd", ["zstd", "-dc"]),
    (b"\x02\x21\x4c\x18", ["lz4", "-dc"]),
]

# vmlinux BTF of a distribution kernel has megabytes; a module's or a test's blob has not.
SMALLEST_BTF = 1 << 20


def find_btf(image):
    """The largest well-formed BTF blob in `image`, or None."""
    best = None
    at = image.find(BTF_START)
    while at >= 0:
        if at + BTF_HEADER.size <= len(image):
            _, _, _, length, type_off, type_len, str_off, str_len = BTF_HEADER.unpack_from(image, at)
            size = length + max(type_off + type_len, str_off + str_len)
            if at + size <= len(image) and size >= SMALLEST_BTF and (best is None or size > len(best)):
                best = image[at : at + size]
        at = image.find(BTF_START, at + 1)
    return best


def unpacked(image):
    """Each decompressed stream of `image`."""
    for magic, command in STREAMS:
        at = image.find(magic)
        while at >= 0:
            try:
                done = subprocess.run(command, input=image[at:], capture_output=True, check=False)
            except FileNotFoundError:
                print(f"kernel-btf.py: {command[0]} is not installed", file=sys.stderr)
                break
            if len(done.stdout) > SMALLEST_BTF:
                yield done.stdout
            at = image.find(magic, at + 1)


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: kernel-btf.py VMLINUZ OUT")
    with open(sys.argv[1], "rb") as file:
        image = file.read()
    btf = find_btf(image)
    for inner in unpacked(image) if btf is None else ():
        btf = find_btf(inner)
        if btf is not None:
            break
    if btf is None:
        sys.exit(f"kernel-btf.py: no BTF in {sys.argv[1]}")
    with open(sys.argv[2], "wb") as file:
        file.write(btf)


if __name__ == "__main__":
    main()
