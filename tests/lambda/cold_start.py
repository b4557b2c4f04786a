"""Measures how the Lambda binaries start: called by scripts/cold-start.

From process start to the first poll of the Runtime API, in a stand-in on loopback; the empty function and the four
take turns, so that all see the same machine. Prints a table for docs/benchmarks.md.
"""

import os
import statistics
import sys

from runtime_api import Function

RUNS = 20


def environment():
    url = "http://127.0.0.1:9"
    queues = {f"{name}_QUEUE_URL": f"{url}/{name.lower()}" for name in ("CLASSIFIER", "RESPONDER", "NOTIFIER", "LOGGER")}
    return {
        "AWS_ENDPOINT_URL": url, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret", "RUST_LOG": "info", "STATE_TABLE": "state", "INCIDENT_TABLE": "incidents",
        "ARCHIVE_BUCKET": "archive", "SNS_TOPIC_ARN": "arn:aws:sns:us-east-1:123456789012:alerts",
        "DLQ_URL": f"{url}/dead", "RESPONSES": "carry-out", "ACCOUNT_ID": "123456789012", **queues,
    }


def main():
    folder = sys.argv[1]
    binaries = [os.path.join(folder, name)
                for name in ("examples/empty", "classifier", "responder", "notifier", "logger")]
    polls = {binary: [] for binary in binaries}
    memory = {binary: [] for binary in binaries}
    for _ in range(RUNS):
        for binary in binaries:
            function = Function(binary, environment())
            function.invoke({"Records": []})
            polls[binary].append((function.api.first_poll - function.started) / 1e6)
            memory[binary].append(function.rss_kib() / 1024)
            function.end()
    floor = statistics.median(polls[binaries[0]])
    print("| function | to first poll, ms (quartiles) | of the empty one | memory, MiB | stripped size, MB |")
    print("|---|---|---|---|---|")
    for binary in binaries:
        low, middle, high = statistics.quantiles(polls[binary], n=4)
        size = os.path.getsize(binary) / 1e6
        print(f"| {os.path.basename(binary)} | {middle:.1f} ({low:.1f} to {high:.1f}) | {middle / floor:.1f} | "
              f"{statistics.median(memory[binary]):.1f} | {size:.1f} |")


main()
