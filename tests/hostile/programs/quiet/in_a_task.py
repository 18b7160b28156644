# tries: a failing assertion in a task whose result nobody asks for
# verdict: FAILED_ASSERTION


def f(x):
    return 0


# --- tests ---
import asyncio


async def check():
    assert f(1) == 2


async def main():
    asyncio.create_task(check())
    await asyncio.sleep(0.01)


asyncio.run(main())
