# tries: a small compressed text that is larger than its memory
# verdict: OUT_OF_MEMORY
# limits: memory_bytes=67108864

import zlib

packer = zlib.compressobj()
small = b"".join(packer.compress(bytes(1 << 20)) for _ in range(128)) + packer.flush()
large = zlib.decompress(small)
