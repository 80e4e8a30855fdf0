"""A Flask application in debug mode: its reloader is the parent of the process that really serves.

    python app.py PORT
"""

import os
import sys
import threading

from flask import Flask, jsonify

LIFE_SECONDS = 120  # Ends by itself: an experiment that went wrong must not leave a server for ever.

app = Flask(__name__)


@app.get("/")
def ok():
    return "ok"


@app.get("/square/<int:n>")
def square(n):
    return jsonify(n=n, square=n * n, pid=os.getpid())


def end_after(seconds):
    """Both processes run this file, so both end."""
    timer = threading.Timer(seconds, os._exit, args=[1])
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    end_after(LIFE_SECONDS)
    app.run(host="127.0.0.1", port=int(sys.argv[1]), debug=True)
