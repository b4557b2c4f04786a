"""A stand-in for Lambda's Runtime API, and a process that polls it.

Nothing of the code under test is used here: it is written after
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html.
"""

import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A function that ends breaks its connection: no error."""


class RuntimeApi:
    """Hands out events and takes the answers."""

    def __init__(self):
        self.events = queue.Queue()
        self.answers = queue.Queue()
        self.first_poll = None
        api = self

        class Requests(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                if api.first_poll is None:
                    api.first_poll = time.perf_counter_ns()
                request_id, event = api.events.get()
                if event is None:
                    return
                body = json.dumps(event).encode()
                self.send_response(200)
                self.send_header("Lambda-Runtime-Aws-Request-Id", request_id)
                self.send_header("Lambda-Runtime-Deadline-Ms", str(int(time.time() * 1000) + 50_000))
                self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:123456789012:function:f")
                self.send_header("Lambda-Runtime-Trace-Id", TRACE)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                self.wfile.flush()

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                api.answers.put((self.path, body))
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

        self.server = Server(("127.0.0.1", 0), Requests)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self):
        return "127.0.0.1:%d" % self.server.server_address[1]

    def close(self):
        self.events.put((None, None))
        self.server.shutdown()
        self.server.server_close()


class Function:
    """A binary as Lambda starts it."""

    def __init__(self, binary, environment):
        self.api = RuntimeApi()
        self.requests = 0
        self.stdout = tempfile.TemporaryFile("w+")
        self.stderr = tempfile.TemporaryFile("w+")
        full = {
            **environment,
            "PATH": os.environ["PATH"],
            "AWS_LAMBDA_RUNTIME_API": self.api.address,
            "AWS_LAMBDA_FUNCTION_NAME": "f",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
            "AWS_LAMBDA_FUNCTION_VERSION": "1",
            "AWS_LAMBDA_LOG_STREAM_NAME": "s",
            "AWS_LAMBDA_LOG_GROUP_NAME": "g",
            "LAMBDA_TASK_ROOT": os.path.dirname(binary),
        }
        self.started = time.perf_counter_ns()
        self.process = subprocess.Popen([binary], env=full, stdout=self.stdout, stderr=self.stderr)

    def send(self, event):
        self.requests += 1
        request_id = "request-%d" % self.requests
        self.api.events.put((request_id, event))
        return request_id

    def answer(self, request_id, timeout_s=60):
        """The answer to a request; an error of the function is one here too."""
        try:
            path, body = self.api.answers.get(timeout=timeout_s)
        except queue.Empty:
            raise AssertionError("no answer; the log is\n" + self.log()) from None
        assert path.endswith("/invocation/%s/response" % request_id), "%s %s\n%s" % (path, body, self.log())
        return json.loads(body)

    def invoke(self, event):
        return self.answer(self.send(event))

    def log(self):
        self.stderr.seek(0)
        return self.stderr.read()

    def lines(self):
        """What it wrote to standard output: JSON lines."""
        self.stdout.seek(0)
        return [json.loads(line) for line in self.stdout.read().splitlines()]

    def rss_kib(self):
        with open("/proc/%d/status" % self.process.pid) as status:
            fields = dict(line.split(":", 1) for line in status if ":" in line)
        return int(fields["VmHWM"].split()[0])

    def end(self):
        """Asks it to end; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None
        finally:
            self.api.close()
