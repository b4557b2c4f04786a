"""The command `scripts/local-aws`: see there."""

import argparse
import json
import signal
import sys
import time
import urllib.error
from pathlib import Path

import attack
import emulators

# What `start --carry-out` is configured with when no file is given.
AUTO = "".join(
    f'[actions.{action}]\nmode = "auto"\n' for action in ("iam_access_key_deactivate", "security_group_rule_revoke")
)


def command_of(environment: dict[str, str]) -> str:
    """The variables as they stand before a command."""
    return " ".join(f"{name}={value}" for name, value in environment.items())


def start(binaries: Path, config: Path | None, carry_out: bool, address: Path) -> None:
    """Runs until interrupted, and prints what comes out."""
    text = config.read_text() if config else AUTO if carry_out else ""
    with emulators.LocalAws(binaries, text, "carry-out" if carry_out else "plan") as local:
        address.parent.mkdir(parents=True, exist_ok=True)
        address.write_text(f"{local.ministack_url} {local.moto_url}")
        print(f"Deployed from deploy/template.yaml: account {emulators.ACCOUNT}, {emulators.REGION}, {local.ministack_url}")
        print(f"The functions log to {local.ministack.log}")
        print("Put events in from another terminal: scripts/local-aws put FILE…    End with Ctrl-C.")
        print("Examine and operate it from there, as it would be in AWS:")
        print(f"  {command_of(local.operator_environment())} {binaries}/pipeline doctor")
        if carry_out:
            print(f"  {command_of(local.responder_environment())} {binaries}/pipeline responses list")
        print(flush=True)
        try:
            follow(local)
        finally:
            address.unlink(missing_ok=True)


def follow(local: emulators.Pipeline) -> None:
    """Prints changes of the account, mails, incidents and dead letters as they come."""
    mails, seen, depths, account = 0, {}, {}, []
    while True:
        now = local.changeable()
        for sign, lines, others in (("-", account, now), ("+", now, account)):
            for line in lines:
                if line not in others:
                    print(f"ACCOUNT  {sign} {line}")
        account = now
        for mail in local.mails()[mails:]:
            mails += 1
            print(f"MAIL  {mail['subject']}\n" + "".join(f"    {line}\n" for line in mail["text"].splitlines()))
        for incident in local.incidents():
            line = "{timestamp} {severity:<8} {status:<10} {event_type}".format(**incident)
            if seen.get(incident["incident_id"]) != line:
                seen[incident["incident_id"]] = line
                print(f"INCIDENT  {line}")
        dead = {name: depth for name, depth in local.depths().items() if name not in emulators.templates.COMPONENTS}
        if dead != depths:
            depths = dead
            print(f"DEAD LETTERS  {dead or 'none'}")
        sys.stdout.flush()
        time.sleep(1)


def put(files: list[Path], address: Path) -> None:
    """Puts the records of files on the default bus of the running emulators."""
    pipeline = running(address)
    for file in files:
        print(f"{pipeline.put(emulators.read(file))} events of {file}")


def happen(address: Path) -> None:
    """Makes a key and opens a group in the emulated account, and puts the records of both on the bus."""
    pipeline = running(address)
    name = f"web-{int(time.time())}"
    (key, made), (group, opened) = attack.create_key(pipeline, f"alice-{name}"), attack.open_group(pipeline, name)
    print(f"created the key {key} and opened the group {group}:")
    # Before the responder sees it, which takes less than the second in which the other terminal looks.
    for line in pipeline.changeable():
        if key in line or group in line:
            print(f"  {line}")
    pipeline.put([made, opened])


def running(address: Path) -> emulators.Pipeline:
    """The one that was started from another terminal."""
    if not address.is_file():
        raise emulators.Failed("nothing runs; start it with: scripts/local-aws")
    return emulators.Pipeline(*address.read_text().split())


def main() -> int:
    """Exit code: 0 done or interrupted, 1 something failed."""
    parser = argparse.ArgumentParser(prog="scripts/local-aws")
    parser.add_argument("--binaries", type=Path, required=True)
    parser.add_argument("--address", type=Path, required=True)
    commands = parser.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("start")
    starting.add_argument("--config", type=Path)
    starting.add_argument("--carry-out", action="store_true")
    commands.add_parser("attack")
    putting = commands.add_parser("put")
    putting.add_argument("files", type=Path, nargs="+")
    arguments = parser.parse_args()
    # Ctrl-C and `kill` end it the same way, emulators included.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if arguments.command == "put":
            put(arguments.files, arguments.address)
        elif arguments.command == "attack":
            happen(arguments.address)
        else:
            start(arguments.binaries, arguments.config, arguments.carry_out, arguments.address)
    except KeyboardInterrupt:
        print("\nended")
    except (emulators.Failed, OSError, json.JSONDecodeError, urllib.error.URLError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
