// Numbers, sizes and times as people read them.

const scaled = (value, base, units) => {
  let unit = 0;
  while (Math.abs(value) >= base && unit < units.length - 1) { value /= base; unit += 1; }
  const digits = unit === 0 || Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return [value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits }), units[unit]];
};

export const count = (value) => scaled(Math.round(value), 1000, ['', ' k', ' M', ' G', ' T']).join('');
export const bytes = (value) => scaled(value, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']).join(' ');
// Of round sizes, as on an axis.
export const roundBytes = (value) => bytes(value).replace(/\.0+ /, ' ');
export const roundCount = (value) => count(value).replace(/\.0+(?= |$)/, '');
export const percent = (ratio) => `${(100 * ratio).toFixed(1)} %`;
export const rate = (value) => (value >= 100 ? count(value) : value.toFixed(value >= 10 ? 1 : 2)) + '/s';

export function seconds(value) {
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 120) return `${Math.round(value)} s`;
  if (value < 7200) return `${Math.round(value / 60)} min`;
  if (value < 172800) return `${(value / 3600).toFixed(1)} h`;
  return `${Math.round(value / 86400)} d`;
}

export const ago = (ms, now) => `${seconds(Math.max(0, (now - ms) / 1000))} ago`;

const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit' });
const clockSeconds = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const day = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });
const dayClock = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' });
// With what of it tells points of a range apart.
export const time = (ms, rangeSeconds) => (rangeSeconds > 3 * 86400 ? day : clock).format(ms);
export const fullTime = (ms) => dayClock.format(ms);
export const eventTime = (ms, now) => (now - ms < 43200e3 ? clockSeconds : dayClock).format(ms);

export const short = (hex) => (hex.length > 12 ? hex.slice(0, 12) : hex);
export const words = (name) => { const text = name.replaceAll('_', ' '); return text[0].toUpperCase() + text.slice(1); };
