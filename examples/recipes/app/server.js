// A development server: the one that listens is a child of the one that npm started.
const { fork } = require("node:child_process");
const { createServer } = require("node:http");

if (process.argv[2] !== "worker") {
  fork(__filename, ["worker"]);
} else {
  createServer((_, response) => response.end("hello\n")).listen(process.env.PORT, "127.0.0.1");
}
