# tries: a list without an end, as programs with a wrong condition make it
# verdict: OUT_OF_MEMORY
# limits: memory_bytes=67108864


class Node:
    def __init__(self, after):
        self.after = after


node = None
while True:
    node = Node(node)
