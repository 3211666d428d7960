// The charts, drawn by Chart.js (compiled in; no network). Made once, then given new numbers without animation.
import { $ } from './dom.js';
import { bytes, fullTime, percent, rate, roundBytes, roundCount, time } from './format.js';

const charts = {};
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const faint = (name) => `color-mix(in srgb, ${color(name)} 18%, transparent)`;

const STEPS = [60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 345600, 604800, 1209600];

// Ticks at round times of the local clock, as many as fit.
function timeTicks(axis) {
  const most = Math.max(2, Math.floor(axis.chart.width / 90));
  const range = (axis.max - axis.min) / 1000;
  const step = 1000 * (STEPS.find((seconds) => range / seconds <= most) ?? STEPS.at(-1));
  const offset = new Date(axis.min).getTimezoneOffset() * 60000;
  axis.ticks = [];
  for (let t = Math.ceil((axis.min - offset) / step) * step + offset; t <= axis.max; t += step) axis.ticks.push({ value: t });
}

// Ticks at powers of two of bytes.
function sizeTicks(axis) {
  const most = Math.max(2, Math.floor(axis.chart.width / 80));
  const first = Math.ceil(Math.log2(axis.min));
  const last = Math.floor(Math.log2(axis.max));
  const step = Math.max(1, Math.ceil((last - first + 1) / most));
  axis.ticks = [];
  for (let power = first; power <= last; power += step) axis.ticks.push({ value: 2 ** power });
}

const axisStyle = () => ({
  grid: { color: color('line'), drawBorder: false, tickLength: 6 },
  ticks: { color: color('muted'), font: { size: 11.5 }, maxRotation: 0 },
});

const line = (name, extra = {}) => ({
  borderColor: color(name), backgroundColor: faint(name), borderWidth: 2, pointRadius: 0, pointHitRadius: 8,
  pointHoverRadius: 4, tension: 0.15, ...extra,
});

function draw(id, datasets, scales, tooltip, extra = {}) {
  const options = {
    responsive: true, maintainAspectRatio: false, animation: false, parsing: false, normalized: true,
    interaction: { mode: 'index', intersect: false },
    scales,
    plugins: {
      legend: { display: false },
      tooltip: {
        backgroundColor: color('card'), titleColor: color('text'), bodyColor: color('text'), borderColor: color('line'),
        borderWidth: 1, padding: 10, boxPadding: 4, usePointStyle: true, callbacks: tooltip,
      },
    },
    ...extra,
  };
  if (!charts[id]) {
    Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
    charts[id] = new Chart($(id), { type: 'line', data: { datasets }, options });
    return;
  }
  const chart = charts[id];
  // In place, so that what is hovered stays so.
  datasets.forEach((dataset, i) => { chart.data.datasets[i] = Object.assign(chart.data.datasets[i] ?? {}, dataset); });
  chart.data.datasets.length = datasets.length;
  chart.options = options;
  chart.update('none');
}

function timeAxis(history, rangeSeconds) {
  return {
    type: 'linear', min: history.now_unix_ms - rangeSeconds * 1000, max: history.now_unix_ms,
    ...axisStyle(), afterBuildTicks: timeTicks,
    ticks: { ...axisStyle().ticks, callback: (value) => time(value, rangeSeconds) },
  };
}

// Where nothing was asked for there is no ratio.
const ratioPoints = (history, by) =>
  history.points.filter((p) => p.counts.asked[by] > 0).map((p) => ({ x: p.unix_ms, y: p.counts.hit_ratio[by] }));

export function drawHistory(history, rangeSeconds) {
  const gap = 6000 * history.step_seconds;
  const title = (items) => (items.length ? fullTime(items[0].parsed.x) : '');
  const few = (points) => (points.length < 3 ? 3 : 0);
  const tokens = ratioPoints(history, 'tokens');
  const inBytes = ratioPoints(history, 'bytes');
  draw('chart-ratio', [
    { label: 'by tokens', data: tokens, spanGaps: gap, ...line('accent', { fill: 'origin', pointRadius: few(tokens) }) },
    { label: 'by bytes', data: inBytes, spanGaps: gap, ...line('second', { borderDash: [5, 4], borderWidth: 1.5, pointRadius: few(inBytes) }) },
  ], {
    x: timeAxis(history, rangeSeconds),
    y: { min: 0, max: 1, ...axisStyle(), ticks: { ...axisStyle().ticks, stepSize: 0.25, callback: (v) => `${Math.round(100 * v)} %` } },
  }, { title, label: (item) => ` ${item.dataset.label}: ${percent(item.parsed.y)}` });

  const perSecond = (value) => value / history.step_seconds;
  draw('chart-rate', [
    { label: 'hit', data: history.points.map((p) => ({ x: p.unix_ms, y: perSecond(p.counts.hit.tokens) })), ...line('accent', { fill: 'origin', borderWidth: 1.5 }) },
    { label: 'missed', data: history.points.map((p) => ({ x: p.unix_ms, y: perSecond(Math.max(0, p.counts.asked.tokens - p.counts.hit.tokens)) })), ...line('warn', { fill: '-1', borderWidth: 1.5 }) },
  ], {
    x: timeAxis(history, rangeSeconds),
    y: { stacked: true, beginAtZero: true, ...axisStyle(), ticks: { ...axisStyle().ticks, maxTicksLimit: 4, callback: (v) => roundCount(v) } },
  }, { title, label: (item) => ` ${item.dataset.label}: ${rate(item.parsed.y)}` });
}

// The names of points: one above its point, the next below, as they are close to each other.
const landmarks = {
  id: 'landmarks',
  afterDatasetsDraw(chart) {
    const marks = chart.data.datasets.find((dataset) => dataset.label === 'marks')?.data ?? [];
    const { ctx, chartArea, scales } = chart;
    ctx.save();
    ctx.font = `600 12px ${Chart.defaults.font.family}`;
    ctx.fillStyle = color('text');
    for (const [i, mark] of marks.entries()) {
      const x = scales.x.getPixelForValue(mark.x);
      const y = scales.y.getPixelForValue(mark.y);
      const right = x + 10 + ctx.measureText(mark.name).width > chartArea.right;
      ctx.textAlign = right ? 'right' : 'left';
      ctx.fillText(mark.name, x + (right ? -9 : 9), i % 2 === 0 ? Math.max(chartArea.top + 12, y - 9) : Math.min(chartArea.bottom - 4, y + 20));
    }
    ctx.restore();
  },
};

export function drawCurve(curve) {
  const at = (factor) => curve.what_if.find((entry) => entry.factor === factor);
  const marks = [[at(1), 'you are here'], [at(2), 'twice the memory']].filter(([entry]) => entry && entry.bytes > 0)
    .map(([entry, name]) => ({ x: entry.bytes, y: 1 - entry.hit_ratio.tokens, name }));
  const points = curve.points.map((p) => ({ x: p.bytes, y: p.miss_ratio.tokens })).filter((p) => p.x > 0);
  const sizes = [...points, ...marks].map((p) => p.x);
  const floor = 1 - curve.most_hit_ratio.tokens;
  const least = Math.min(...sizes) / 1.5;
  const most = Math.max(...sizes) * 2;
  if (points.length) { points.unshift({ x: least, y: points[0].y > 0.999 ? 1 : points[0].y }); points.push({ x: most, y: floor }); }
  const inBytes = curve.points.map((p) => ({ x: p.bytes, y: p.miss_ratio.bytes })).filter((p) => p.x > 0);
  draw('chart-curve', [
    { label: 'marks', data: marks, showLine: false, ...line('text', { pointRadius: 5.5, pointHoverRadius: 7, pointBackgroundColor: color('card'), pointBorderColor: color('text'), pointBorderWidth: 2.5 }) },
    { label: 'by tokens', data: points, ...line('accent', { fill: 'origin', tension: 0 }) },
    { label: 'by bytes', data: inBytes, ...line('second', { borderDash: [5, 4], borderWidth: 1.5, tension: 0 }) },
  ], {
    x: { type: 'logarithmic', min: least, max: most, ...axisStyle(), afterBuildTicks: sizeTicks, ticks: { ...axisStyle().ticks, callback: (v) => roundBytes(v) } },
    y: { min: 0, max: 1, ...axisStyle(), ticks: { ...axisStyle().ticks, stepSize: 0.25, callback: (v) => `${Math.round(100 * v)} %` } },
  }, {
    title: (items) => (items.length ? `${bytes(items[0].parsed.x)} a node` : ''),
    label: (item) => ` ${item.raw.name ?? item.dataset.label}: ${percent(item.parsed.y)} missed`,
  }, { interaction: { mode: 'nearest', axis: 'x', intersect: false } });
}

export const setUp = () => Chart.register(landmarks);
