"""Programs that run inside the sandbox, as files: never imported by the harness but for `wire`.

Each is started as `python -s -P -S -B /guest/NAME.py FD LIMITS` and uses the standard library only.
"""
