# tries: nothing; a program without tests
# verdict: COMPLETED
# tests: none

print("hello")
