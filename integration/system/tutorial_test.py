#!/usr/bin/env python3
"""Runs docs/tutorial.md as a reader would: its commands in one shell, in order, and looks whether what it shows comes out.

    tutorial_test.py --path build/release/kdn-node:... [--shell "chroot ROOT bash"] [docs/tutorial.md]

Blocks marked ```sh are run; the ```text block behind one is what it must print: each of its lines, in this order, others
between them; … stands for anything, and runs of blanks are one. Words behind `sh`: `retry` runs the block again until it
is so, for PATIENCE seconds; `exit=N` is the exit code of its last command. ```console blocks are for the reader alone.
--keep-ports leaves the tutorial's ports as they are; otherwise each is replaced by one that is free.
"""
import argparse
import os
import pathlib
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time

PATIENCE = 30.0
LONGEST = 90.0  # one block
PORT = re.compile(r'\b75[0-9](?:[0-9]\b|(?=\$1))')
FENCE = re.compile(r'^```(\w*)[ ]?(.*)$')


class Failed(Exception):
    pass


class Block:
    def __init__(self, number, kind, words, lines):
        self.number, self.kind, self.lines = number, kind, lines
        self.retry = 'retry' in words
        self.exit = next((int(word[5:]) for word in words if word.startswith('exit=')), 0)
        self.expected = []


def read_blocks(text):
    blocks = []
    current = None
    for number, line in enumerate(text.splitlines(), 1):
        fence = FENCE.match(line)
        if current is not None:
            if line == '```':
                if current.kind == 'text' and blocks and blocks[-1].kind == 'sh':
                    blocks[-1].expected = current.lines
                else:
                    blocks.append(current)
                current = None
            else:
                current.lines.append(line)
        elif fence:
            current = Block(number, fence.group(1), fence.group(2).split(), [])
    if current is not None:
        raise Failed(f'line {current.number}: the block has no end')
    return [block for block in blocks if block.kind == 'sh']


def replace_ports(text):
    """Every port of the tutorial, 752$1 for 7521 to 7523 among them, by a free one."""
    prefixes = sorted({match[:3] for match in PORT.findall(text)})
    free = {}
    for prefix in prefixes:
        for base in range(20000 + 10 * (os.getpid() % 1000), 32000, 10):
            if base // 10 not in free.values() and all(is_free(base + i) for i in range(10)):
                free[prefix] = base // 10
                break
        else:
            raise Failed('no ten ports in a row are free')
    return PORT.sub(lambda match: str(free[match[0][:3]]) + match[0][3:], text)


def is_free(port):
    with socket.socket() as probe:
        try:
            probe.bind(('127.0.0.1', port))
        except OSError:
            return False
    return True


class Shell:
    """One bash, of which the daemons that the tutorial starts are children: they end with its session."""

    def __init__(self, argv, path, directory):
        environment = {'PATH': f'{path}:{os.environ["PATH"]}' if path else os.environ['PATH'], 'HOME': directory,
                       'LC_ALL': 'C.UTF-8'}
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                         env=environment, cwd=directory, start_new_session=True)
        self._blocks = 0

    def run(self, lines):
        """What they print, and the exit code of the last command."""
        self._blocks += 1
        mark = f'--- end of block {self._blocks}, exit code'
        script = '\n'.join(lines) + f'\necho "{mark} $?"\n'
        self._process.stdin.write(script.encode())
        self._process.stdin.flush()
        said = b''
        end = time.monotonic() + LONGEST
        while True:
            if not select.select([self._process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
                raise Failed(f'it did not end within {LONGEST:.0f} s; it said\n{said.decode(errors="replace")}')
            part = os.read(self._process.stdout.fileno(), 1 << 16)
            if not part:
                raise Failed(f'the shell ended; it said\n{said.decode(errors="replace")}')
            said += part
            done = re.search(re.escape(mark).encode() + rb' (\d+)\n', said)
            if done:
                return said[:done.start()].decode(errors='replace'), int(done[1])

    def close(self):
        """Ends it and all that it started."""
        session = self._process.pid
        for number in [signal.SIGTERM, signal.SIGKILL]:
            members = members_of(session)
            for member in members:
                try:
                    os.kill(member, number)
                except ProcessLookupError:
                    pass
            end = time.monotonic() + 15
            while members_of(session) and time.monotonic() < end:
                self._process.poll()
                time.sleep(0.05)
        self._process.wait()


def members_of(session):
    found = []
    for entry in pathlib.Path('/proc').iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / 'stat').read_text().rpartition(')')[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != 'Z':
                found.append(int(entry.name))
    return found


def mismatch(expected, said):
    """The first line of `expected` that does not come, or None."""
    lines = iter(re.sub(r'\s+', ' ', line).strip() for line in said.splitlines())
    for wanted in expected:
        wanted = re.sub(r'\s+', ' ', wanted).strip()
        pattern = re.compile('.*'.join(re.escape(part) for part in wanted.split('…')))
        if wanted and not any(pattern.fullmatch(line) for line in lines):
            return wanted
    return None


def run_block(shell, block):
    end = time.monotonic() + PATIENCE
    while True:
        said, code = shell.run(block.lines)
        missing = mismatch(block.expected, said)
        if code == block.exit and missing is None:
            return
        if not block.retry or time.monotonic() > end:
            what = f'line {block.number}: ' + '; '.join(block.lines) + '\n'
            if code != block.exit:
                what += f'exit code {code}, not {block.exit}\n'
            if missing is not None:
                what += f'no such line, or not in this order: {missing}\n'
            raise Failed(f'{what}it printed\n{said}')
        time.sleep(0.2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--path', default='', help='folders of the programs, as in PATH')
    parser.add_argument('--shell', default='bash', help='the shell to run the commands in')
    parser.add_argument('--keep-ports', action='store_true')
    root = pathlib.Path(__file__).resolve().parents[2]
    parser.add_argument('tutorial', type=pathlib.Path, nargs='?', default=root / 'docs/tutorial.md')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='kdn-tutorial-') as directory:
        try:
            text = args.tutorial.read_text(encoding='utf-8')
            blocks = read_blocks(text if args.keep_ports else replace_ports(text))
            if not any(block.expected for block in blocks):
                raise Failed(f'{args.tutorial} shows nothing')
            shell = Shell(shlex.split(args.shell), args.path, directory)
            try:
                for block in blocks:
                    run_block(shell, block)
                # It must have tidied up itself.
                left = [pid for pid in members_of(shell._process.pid) if pid != shell._process.pid]
                if left:
                    raise Failed(f'processes {left} still run at its end')
            except Failed as failure:
                said, _ = shell.run(['tail -n 5 *.log kdn-tutorial/*.log 2>/dev/null'])
                raise Failed(f'{failure}\nlogs:\n{said}') from None
            finally:
                shell.close()
            if list(pathlib.Path(directory).iterdir()):
                raise Failed('it left files behind')
        except Failed as failure:
            print(f'FAILED: {failure}', file=sys.stderr)
            return 1
    print(f'{len(blocks)} blocks ran and printed what they should')
    return 0


if __name__ == '__main__':
    sys.exit(main())
