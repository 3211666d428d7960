"""Drives headless Chromium over its DevTools protocol through the web page of a running kdn-placement.

Checks what a reader relies on: the page loads from this daemon alone, shows the numbers of its JSON, follows new
traffic without making its parts anew, logs no errors, is readable in dark, in light and on a phone, has a table for each
chart, and says so when the daemon is away. Exits 0 when all of it holds. Uses what Debian packages: chromium,
python3-websocket.
"""
import argparse
import base64
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

import websocket

PATIENCE = 20.0
RANGE = 3600


class Failure(Exception):
    pass


def expect(holds, what):
    if not holds:
        raise Failure(what)


def wait_for(what, check, patience=PATIENCE):
    """The first true answer of `check`."""
    end = time.monotonic() + patience
    last = None
    while time.monotonic() < end:
        last = check()
        if last:
            return last
        time.sleep(0.1)
    raise Failure(f'not within {patience:.0f} s: {what}')


def get_json(url):
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


def end_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


class Browser:
    """One headless Chromium with one page."""

    def __init__(self, directory):
        self._log = open(os.path.join(directory, 'chromium.log'), 'wb')
        self._process = subprocess.Popen(
            ['chromium', '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
             '--disable-extensions', '--disable-background-networking', '--disable-component-update',
             '--disable-quic', '--disable-sync', '--lang=en', '--hide-scrollbars', '--remote-debugging-port=0',
             '--remote-allow-origins=*',
             f'--user-data-dir={directory}/profile', 'about:blank'],
            stdout=self._log, stderr=self._log, preexec_fn=end_with_parent)
        port_file = f'{directory}/profile/DevToolsActivePort'
        wait_for('Chromium starts', lambda: os.path.exists(port_file) and open(port_file).read().count('\n') >= 1, 40)
        port = open(port_file).read().split('\n')[0]
        pages = wait_for('a page', lambda: [t for t in get_json(f'http://127.0.0.1:{port}/json/list')
                                            if t['type'] == 'page'])
        self._socket = websocket.create_connection(pages[0]['webSocketDebuggerUrl'], timeout=30)
        self._last = 0
        self.errors = []
        self.urls = []
        for domain in ['Runtime', 'Log', 'Page', 'Network']:
            self.call(f'{domain}.enable')

    def close(self):
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def call(self, method, **parameters):
        self._last += 1
        self._socket.send(json.dumps({'id': self._last, 'method': method, 'params': parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get('id') == self._last:
                expect('error' not in message, f'{method}: {message.get("error")}')
                return message['result']
            self._note(message)

    def _note(self, message):
        method, parameters = message.get('method'), message.get('params', {})
        if method == 'Runtime.exceptionThrown':
            details = parameters['exceptionDetails']
            self.errors.append(details.get('exception', {}).get('description', details.get('text')))
        elif method == 'Runtime.consoleAPICalled' and parameters['type'] in ('error', 'warning', 'assert'):
            self.errors.append(str([a.get('value', a.get('description')) for a in parameters['args']]))
        elif method == 'Log.entryAdded' and parameters['entry']['level'] in ('error', 'warning'):
            self.errors.append(f'{parameters["entry"]["text"]} {parameters["entry"].get("url", "")}')
        elif method == 'Network.requestWillBeSent':
            self.urls.append(parameters['request']['url'])

    def js(self, expression):
        result = self.call('Runtime.evaluate', expression=expression, returnByValue=True, awaitPromise=True)
        expect('exceptionDetails' not in result, f'{expression}: {result.get("exceptionDetails")}')
        return result['result'].get('value')

    def text(self, element):
        return self.js(f'document.getElementById({json.dumps(element)}).textContent')

    def screen(self, width, height, dark, phone=False):
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=2, mobile=phone)
        self.call('Emulation.setEmulatedMedia',
                  features=[{'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}])
        theme = 'dark' if dark else 'light'
        wait_for(f'the {theme} theme', lambda: self.js('document.documentElement.dataset.theme') == theme)
        time.sleep(0.4)  # charts take their new size with the next frames; pictures alone depend on it

    def picture(self, path, height=None):
        shot = {'format': 'png'}
        if height is None:
            size = self.call('Page.getLayoutMetrics')['cssContentSize']
            shot.update(captureBeyondViewport=True,
                        clip={'x': 0, 'y': 0, 'width': size['width'], 'height': size['height'], 'scale': 1})
        with open(path, 'wb') as out:
            out.write(base64.b64decode(self.call('Page.captureScreenshot', **shot)['data']))


def count(value):
    """As the page's format.js writes it, by another hand."""
    units = ['', ' k', ' M', ' G', ' T']
    value = float(round(value))
    unit = 0
    while abs(value) >= 1000 and unit < len(units) - 1:
        value /= 1000
        unit += 1
    digits = 0 if unit == 0 or abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f'{value:.{digits}f}{units[unit]}'


def percent(ratio):
    return f'{100 * ratio:.1f} %'


def shown_equals_json(browser, url):
    """What the page shows, once it is what the JSON says."""
    def check():
        history = get_json(f'{url}api/v1/history?range={RANGE}&points=240')
        overview = get_json(f'{url}api/v1/overview')
        total = history['total']
        wanted = {
            'kpi-hit-tokens': percent(total['hit_ratio']['tokens']),
            'kpi-hit-bytes': percent(total['hit_ratio']['bytes']),
            'kpi-asked': count(total['asked']['tokens']),
            'kpi-tokens': count(sum(tier['tokens'] for tier in total['delivered'].values())),
            'kpi-nodes': f'{overview["nodes_answered"]} / {overview["nodes_total"]}',
            'cluster': overview['cluster'],
        }
        shown = {name: browser.text(name) for name in wanted}
        check.last = f'shown {shown}, wanted {wanted}'
        return wanted if shown == wanted and total['asked']['tokens'] > 0 else None
    try:
        return wait_for('the page shows what the JSON says', check)
    except Failure as failure:
        raise Failure(f'{failure}; {check.last}') from None


def check_parts(browser, url):
    overview = get_json(f'{url}api/v1/overview')
    expect(overview['total']['hit']['tokens'] > 0 and overview['nodes_answered'] == 3, 'no real traffic')
    # Independently of what was added up: the nodes' own numbers.
    asked = sum(node['counts']['asked']['tokens'] for node in overview['nodes'])
    expect(abs(asked - overview['total']['asked']['tokens']) < 1, 'the cluster is not the sum of its nodes')
    for node in overview['nodes']:
        expect(node['id'] in browser.text('nodes'), f'{node["id"]} is not listed')
    expect('Never stored' in browser.text('causes'), f'no reasons of misses: {browser.text("causes")}')
    expect('Memory' in browser.text('tiers') and 'Disk' in browser.text('tiers'), 'tiers are missing')
    # What an engine told one of the nodes.
    model = wait_for('the name of the space', lambda: next(
        (space['model'] for space in get_json(f'{url}api/v1/overview?tenant=team%20blue')['spaces']), None))
    for name in [model, 'team blue']:
        wait_for(f'{name} in the table of spaces', lambda: name in browser.text('spaces'))
    wait_for('names in the choice of spaces', lambda: model in browser.text('space'))
    wait_for('blending', lambda: '12 prompts blended, 1 not' in browser.text('blend-note'))
    expect(not browser.js('document.getElementById("blend-card").hidden'), 'the panel of blending is hidden')
    expect(percent((18 - 2.6) / 24) in browser.text('blend'), f'no share of moved tokens: {browser.text("blend")}')
    # A node knows how long a prefix is from the first hit on.
    wait_for('hot prefixes', lambda: 'tokens' in browser.text('prefixes'))
    wait_for('events', lambda: 'for the first time' in browser.text('events'))
    twice = wait_for('the miss-ratio curve', lambda: browser.js(
        'document.getElementById("curve-twice")?.textContent'))
    by_factor = {entry['factor']: entry for entry in get_json(f'{url}api/v1/overview')['curve']['what_if']}
    expect(twice == percent(by_factor[2]['hit_ratio']['tokens']), f'{twice} is not what the JSON says of twice')
    for chart in ['chart-ratio', 'chart-rate', 'chart-curve']:
        drawn = browser.js(f'''(() => {{ const c = document.getElementById("{chart}");
            const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
            let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n; }})()''')
        expect(drawn > 100, f'{chart} is empty')
    for details in ['table-ratio', 'table-curve']:
        browser.js(f'document.getElementById("{details}").closest("details").open = true')
        wait_for(f'{details} has rows', lambda: browser.js(f'document.querySelectorAll("#{details} tbody tr").length'))
        browser.js(f'document.getElementById("{details}").closest("details").open = false')


CONTRAST = '''(() => {
  const probe = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = (c) => { probe.clearRect(0, 0, 1, 1); probe.fillStyle = c; probe.fillRect(0, 0, 1, 1);
                       return [...probe.getImageData(0, 0, 1, 1).data].slice(0, 3); };
  const light = (c) => { const [r, g, b] = rgb(c).map((v) => { v /= 255;
                           return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
                         return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const style = getComputedStyle(document.documentElement);
  const ratio = (a, b) => { const [x, y] = [light(style.getPropertyValue(a)), light(style.getPropertyValue(b))];
                            return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05); };
  return Math.min(...['--text', '--muted', '--accent', '--warn', '--bad', '--good'].map((c) => ratio(c, '--card')));
})()'''

UNNAMED = '''[...document.querySelectorAll('button, select, canvas, table.grid, section')].filter((e) =>
  !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.closest('label')?.textContent.trim() ||
    e.textContent.trim())).map((e) => e.outerHTML.slice(0, 80))'''


def check_looks(browser, screenshots):
    browser.js('document.querySelector(\'[data-range="900"]\').click()')
    for name, width, height, dark, phone in [('laptop-light', 1280, 800, False, False),
                                             ('laptop-dark', 1280, 800, True, False),
                                             ('phone-light', 390, 844, False, True),
                                             ('phone-dark', 390, 844, True, True)]:
        browser.screen(width, height, dark, phone)
        contrast = browser.js(CONTRAST)
        expect(contrast >= 4.5, f'{name}: contrast {contrast:.2f} is under 4.5')
        overflow = browser.js('document.documentElement.scrollWidth - document.documentElement.clientWidth')
        expect(overflow <= 0, f'{name}: wider than the screen by {overflow} pixels')
        if screenshots and name in ('laptop-light', 'phone-dark'):
            browser.picture(f'{screenshots}/web-{name}.png', height=height if phone else None)
    expect(browser.js(UNNAMED) == [], f'without a name for a screen reader: {browser.js(UNNAMED)}')
    before = browser.js('document.documentElement.dataset.theme')
    browser.js('document.getElementById("theme").click()')
    expect(browser.js('document.documentElement.dataset.theme') != before, 'the switch of colours does nothing')
    browser.js('document.getElementById("theme").click()')
    expect(browser.js('document.documentElement.dataset.theme') == before, 'the colours do not come back')
    browser.js(f'document.querySelector(\'[data-range="{RANGE}"]\').click()')


def check_away(browser):
    """Last, as a browser logs what it cannot load."""
    browser.call('Network.emulateNetworkConditions', offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    wait_for('the page says that the daemon is away', lambda: browser.js('!document.getElementById("problem").hidden'))
    expect('tries again' in browser.text('problem'), browser.text('problem'))
    browser.call('Network.emulateNetworkConditions', offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    wait_for('the page comes back', lambda: browser.js('document.getElementById("problem").hidden'))


def check_metrics(url):
    with urllib.request.urlopen(url, timeout=10) as response:
        text = response.read()
    expect(b'kdn_cluster_cache_asked_tokens_total{' in text, 'no metrics of the cluster')
    if shutil.which('promtool'):
        checked = subprocess.run(['promtool', 'check', 'metrics'], input=text, capture_output=True, check=False)
        expect(checked.returncode == 0, checked.stdout + checked.stderr)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--url', required=True)
    parser.add_argument('--metrics', required=True)
    parser.add_argument('--loaded-file', required=True)
    parser.add_argument('--more-file', required=True)
    parser.add_argument('--screenshots')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='kdn-web-', ignore_cleanup_errors=True) as directory:
        browser = Browser(directory)
        try:
            browser.call('Page.navigate', url=args.url)
            wait_for('the page draws', lambda: browser.js('document.documentElement?.dataset?.drawn'))
            first = shown_equals_json(browser, args.url)
            browser.js('window.kept = [...document.querySelectorAll("#nodes tr, #causes tr, canvas")]')
            with open(args.loaded_file, 'w', encoding='utf-8') as out:
                out.write('loaded\n')
            wait_for('more traffic', lambda: os.path.exists(args.more_file), 40)
            wait_for('the page follows', lambda: browser.text('kpi-asked') != first['kpi-asked'])
            shown_equals_json(browser, args.url)
            expect(browser.js('window.kept.length > 3 && window.kept.every((node) => node.isConnected)'),
                   'parts of the page were made anew')
            check_parts(browser, args.url)
            check_looks(browser, args.screenshots)
            check_metrics(args.metrics)
            expect(browser.errors == [], f'errors in the console: {browser.errors}')
            foreign = [url for url in browser.urls if not url.startswith((args.url, 'data:', 'about:'))]
            expect(foreign == [], f'asked others: {foreign}')
            check_away(browser)
        except Failure as failure:
            print(f'FAILED: {failure}\nconsole: {browser.errors}', file=sys.stderr)
            return 1
        finally:
            browser.close()
    print('the page is well')
    return 0


if __name__ == '__main__':
    sys.exit(main())
