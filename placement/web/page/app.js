// Asks the daemon every few seconds, and draws. What a reader sees is either of now, or said not to be.
import { $, text } from './dom.js';
import { ago } from './format.js';
import * as charts from './charts.js';
import * as panels from './panels.js';

const state = { range: 3600, space: '', overview: null, history: null, drawn: 0, timer: 0, asking: null };
const SLOWEST_RETRY_MS = 15000;

async function get(path, signal) {
  const response = await fetch(path, { signal, headers: { Accept: 'application/json' } });
  if (response.status === 503) return null;  // not asked yet, or not at the moment: not an error of the page
  if (!response.ok) throw new Error((await response.json().catch(() => ({}))).error ?? `HTTP ${response.status}`);
  return response.json();
}

const historyPath = () => `api/v1/history?range=${state.range}&points=240${state.space ? `&space=${encodeURIComponent(state.space)}` : ''}`;

function problem(message) {
  $('problem').hidden = !message;
  if (!message) return;
  text('problem', message);
  $('health').dataset.tone = 'bad';
  text('health', 'No connection');
}

function draw() {
  const { overview, history } = state;
  if (!overview || !history) return;
  const ofSpace = overview.spaces.find((space) => space.space === state.space);
  panels.drawHealth(overview);
  panels.drawSpaceChoice(overview, state.space);
  panels.drawEmpty(overview, history.total);
  panels.drawKpis(overview, history.total);
  panels.drawHistoryTable(history);
  panels.drawCauses(history.total);
  panels.drawTiers(overview, history.total);
  panels.drawBlend(history.total);
  panels.drawPrefixes(overview, state.space);
  panels.drawNodes(overview);
  panels.drawSpaces(overview);
  panels.drawEvents(overview);
  const curve = state.space ? ofSpace?.curve : overview.curve;
  if (panels.drawCurveText(curve ?? { asked: { chunks: 0 }, points: [], what_if: [{ factor: 1 }, { factor: 2 }] })) charts.drawCurve(curve);
  charts.drawHistory(history, state.range);
  state.drawn += 1;
  document.documentElement.dataset.drawn = state.drawn;
}

function sayAge() {
  if (state.overview) text('updated', `Updated ${ago(state.overview.taken_unix_ms, Date.now())}`);
}

async function ask() {
  clearTimeout(state.timer);
  state.asking?.abort();
  const asking = new AbortController();
  state.asking = asking;
  let wait = state.overview?.interval_ms ?? 2000;
  try {
    const [overview, history] = await Promise.all([get('api/v1/overview', asking.signal), get(historyPath(), asking.signal)]);
    if (overview && history) {
      Object.assign(state, { overview, history });
      problem('');
      draw();
    } else {
      text('health', 'Waiting for the first numbers…');
      wait = 1000;
    }
  } catch (error) {
    if (asking.signal.aborted) return;
    const what = error instanceof TypeError ? 'kdn-placement does not answer' : error.message;
    problem(`${what}. What you see may be old. Check that the daemon at ${location.host} runs; this page tries again by itself.`);
    wait = Math.min(SLOWEST_RETRY_MS, Math.max(2000, wait));
    if (state.space && !(error instanceof TypeError)) state.space = '';
  }
  sayAge();
  if (!document.hidden) state.timer = setTimeout(ask, Math.max(500, wait));
}

function choose(range) {
  state.range = range;
  for (const button of $('ranges').children) button.setAttribute('aria-pressed', String(Number(button.dataset.range) === range));
  ask();
}

function labelTheme() {
  const names = { system: 'as the system', dark: 'dark', light: 'light' };
  $('theme').setAttribute('aria-label', `Colours: ${names[kdnTheme.chosen]}`);
  $('theme').title = $('theme').getAttribute('aria-label');
}

charts.setUp();
panels.drawLegends();
labelTheme();
$('ranges').addEventListener('click', (event) => { if (event.target.dataset.range) choose(Number(event.target.dataset.range)); });
$('space').addEventListener('change', (event) => { state.space = event.target.value; ask(); });
$('theme').addEventListener('click', () => kdnTheme.next());
addEventListener('themechange', () => { labelTheme(); draw(); });
document.addEventListener('visibilitychange', () => { if (!document.hidden) ask(); });
for (const details of document.querySelectorAll('details')) details.addEventListener('toggle', draw);
setInterval(sayAge, 1000);
ask();
