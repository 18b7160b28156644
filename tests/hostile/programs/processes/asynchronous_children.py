# tries: uses asyncio's subprocesses as programs do
# verdict: PASSED

import asyncio


async def said(word):
    child = await asyncio.create_subprocess_exec("/bin/echo", word, stdout=asyncio.subprocess.PIPE)
    return (await child.communicate())[0].decode().strip()


# --- tests ---
assert asyncio.run(said("hello")) == "hello"
