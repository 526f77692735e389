"""Runs innerloop commands in this process and prints, as JSON, what an audit hook saw of sockets, pickle and processes.

    python watched_child.py '[["train", "run.yaml"], ...]'

A command `["python", SOURCE]` is Python source: what the hook sees of it shows that the hook sees.
"""

import json
import sys

# Name resolution and connections; objects that unpickling looks up; other programs, which no hook would follow.
WATCHED = {
    "network": ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"),
    "pickle": ("pickle.find_class",),
    "processes": ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"),
}
KINDS = {event: kind for kind, events in WATCHED.items() for event in events}

seen: dict[str, list[str]] = {kind: [] for kind in WATCHED}


def watch(event: str, args: tuple[object, ...]) -> None:
    if kind := KINDS.get(event):
        seen[kind].append(f"{event} {args[:2]}")


def main(commands: list[list[str]]) -> None:
    sys.addaudithook(watch)
    codes = []
    for command in commands:
        if command[0] == "python":
            exec(command[1], {})
            continue
        from innerloop.cli import main as innerloop

        sys.argv = ["innerloop", *command]
        try:
            innerloop()
        except SystemExit as ended:
            codes.append(ended.code or 0)
    print(json.dumps({"codes": codes, **seen}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
