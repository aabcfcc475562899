"""Stores values over the memcached protocol, reads them back and compares every byte.

    smoke.py SOCKET [COUNT] [LENGTH]
"""

import random
import socket
import sys


def body(number, length):
    return random.Random(number).randbytes(length)


def main():
    path = sys.argv[1]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 4000
    length = int(sys.argv[3]) if len(sys.argv) > 3 else 16 << 10
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    answers = connection.makefile("rb")
    for number in range(count):
        head = f"set key-{number} {number} 0 {length}\r\n".encode()
        connection.sendall(head + body(number, length) + b"\r\n")
        answer = answers.readline()
        if answer != b"STORED\r\n":
            sys.exit(f"set {number}: {answer!r}")
    missing = 0
    for number in random.Random(0).sample(range(count + count // 10), count + count // 10):
        connection.sendall(f"get key-{number}\r\n".encode())
        head = answers.readline()
        if head == b"END\r\n":
            missing += number < count
            continue
        if head != f"VALUE key-{number} {number} {length}\r\n".encode() or number >= count:
            sys.exit(f"get {number}: {head!r}")
        if answers.read(length + 7) != body(number, length) + b"\r\nEND\r\n":
            sys.exit(f"get {number}: other bytes than were stored")
    print(f"{count} values of {length} bytes: {count - missing} found and right, {missing} missing")
    sys.exit(missing * 100 > count)


if __name__ == "__main__":
    main()
