// Each part of the page, from the documents of /api/v1 to the document's nodes.
import { $, bar, element, fill, table, text } from './dom.js';
import { ago, bytes, count, eventTime, fullTime, percent, rate, seconds, short, words } from './format.js';

const sum = (parts, field) => Object.values(parts).reduce((all, part) => all + part[field], 0);
const tierNames = { memory: 'Memory', disk: 'Disk', cold_disk: 'Cold disks' };
const causeNotes = {
  never_stored: 'nobody stored them yet', evicted: 'they had to make room', expired: 'their time was over',
  deleted: 'somebody deleted them', corrupt: 'a checksum failed', too_slow: 'the deadline came first',
  refused: 'the node was overloaded', fidelity: 'held less exactly than asked for', wrong_space: 'held for another space',
  unreachable: 'a node did not answer', cancelled: 'whoever asked left', other: '',
};

export function drawKpis(overview, total) {
  const asked = total.asked.tokens;
  text('kpi-hit-tokens', asked > 0 ? percent(total.hit_ratio.tokens) : '–');
  text('kpi-hit-bytes', asked > 0 ? percent(total.hit_ratio.bytes) : '–');
  text('kpi-tokens', count(sum(total.delivered, 'tokens')));
  text('kpi-asked', count(asked));
  text('kpi-bytes', bytes(sum(total.delivered, 'bytes')));
  text('kpi-stored', bytes(total.stored.bytes));
  text('kpi-saved', overview.prefill_speed_known ? seconds(total.prefill_seconds_saved) : '–');
  text('kpi-saved-note', overview.prefill_speed_known ? 'of computing' : 'no engine has reported');
  text('kpi-nodes', `${overview.nodes_answered} / ${overview.nodes_total}`);
  text('kpi-nodes-note', overview.nodes_stale > 0 ? `${overview.nodes_stale} stale` : 'answer');
}

export function drawHealth(overview) {
  const away = overview.nodes_total - overview.nodes_answered;
  const pill = $('health');
  pill.dataset.tone = overview.nodes_total === 0 ? 'idle' : away > 0 ? 'warn' : 'good';
  text(pill, overview.nodes_total === 0 ? 'No nodes' : away > 0 ? `${away} of ${overview.nodes_total} nodes away` : 'All nodes answer');
  text('cluster', overview.cluster);
  document.title = `KDN · ${overview.cluster}`;
  text('version', `kdn-placement ${overview.version} · epoch ${overview.epoch}`);
}

export function drawEmpty(overview, total) {
  const notice = $('empty');
  notice.hidden = overview.nodes_total > 0 && total.asked.tokens > 0;
  if (notice.hidden) return;
  if (overview.nodes_total === 0) {
    fill('empty', 'No node has joined this cluster yet. Start one with ',
      element('code', {}, 'kdn-node --placement HOST:7411 --node-id n1 --disk-path DIR'), '; it appears here within seconds.');
  } else {
    fill('empty', 'Nothing was asked for in this time. Choose a longer one, or point an engine or ',
      element('code', {}, 'kdnctl'), ' at the cluster; numbers appear within seconds.');
  }
}

const mark = (tone, name) => [element('span', {}, element('i', { class: tone, 'aria-hidden': 'true' }), name)];

export function drawLegends() {
  fill('ratio-legend', ...mark('c-accent', 'by tokens'), ...mark('c-second', 'by bytes'));
  fill('rate-legend', ...mark('c-accent', 'hit'), ...mark('c-miss', 'missed'));
  fill('curve-legend', ...mark('c-accent', 'by tokens'), ...mark('c-second', 'by bytes'));
}

export function drawHistoryTable(history) {
  if (!$('table-ratio').closest('details').open) return;
  const rows = history.points.filter((p) => p.counts.asked.tokens > 0).slice(-200).reverse();
  table('table-ratio', [['Time'], ['Hit, by tokens', 1], ['By bytes', 1], ['Tokens asked for', 1], ['Tokens hit', 1]],
    rows.map((p) => [fullTime(p.unix_ms), percent(p.counts.hit_ratio.tokens), percent(p.counts.hit_ratio.bytes),
      count(p.counts.asked.tokens), count(p.counts.hit.tokens)]));
}

export function drawCauses(total) {
  const causes = Object.entries(total.missed).filter(([, part]) => part.tokens >= 0.5).sort((a, b) => b[1].tokens - a[1].tokens);
  const all = causes.reduce((tokens, [, part]) => tokens + part.tokens, 0);
  text('causes-note', all > 0 ? `${count(all)} tokens missed` : '');
  if (all <= 0) {
    fill('causes', element('tbody', {}, element('tr', {}, element('td', { class: 'quiet' },
      total.asked.tokens > 0 ? 'Nothing missed in this time.' : 'Nothing asked for in this time.'))));
    return;
  }
  fill('causes', element('caption', { class: 'visually-hidden' }, 'Tokens missed by reason'),
    element('tbody', {}, ...causes.map(([cause, part]) => element('tr', {},
      element('td', { class: 'name', title: causeNotes[cause] ?? '' }, words(cause)),
      element('td', {}, bar(part.tokens / all, 'c-miss')),
      element('td', { class: 'n' }, percent(part.tokens / all)),
      element('td', { class: 'n quiet' }, count(part.tokens))))));
}

export function drawTiers(overview, total) {
  const hits = sum(total.found, 'tokens');
  fill('tiers', ...Object.entries(overview.tiers).filter(([, tier]) => tier.budget_bytes > 0).map(([name, tier]) => {
    const found = total.found[name].tokens;
    const left = [`${bytes(tier.evicted_bytes)} evicted`, `${count(tier.evicted_wanted)} chunks wanted again`];
    if (tier.corrupt_chunks > 0) left.push(`${count(tier.corrupt_chunks)} damaged`);
    return element('div', { class: 'tier' },
      element('div', { class: 'row' }, element('b', {}, tierNames[name]),
        element('span', {}, `${bytes(tier.held_bytes)} of ${bytes(tier.budget_bytes)}`)),
      bar(tier.held_bytes / tier.budget_bytes),
      element('p', { class: 'note' },
        `${hits > 0 ? percent(found / hits) : '–'} of hits, ${count(found)} tokens · ${left.join(' · ')}`));
  }));
  if (!$('tiers').childNodes.length) fill('tiers', element('p', { class: 'quiet' }, 'No node has told of its tiers yet.'));
}

export function drawCurveText(curve) {
  const at = (factor) => curve.what_if.find((entry) => entry.factor === factor);
  const here = at(1);
  const twice = at(2);
  const enough = curve.asked.chunks > 0 && curve.points.length > 0;
  $('chart-curve').parentElement.hidden = !enough;
  if (!enough) {
    fill('curve-say', element('span', { class: 'quiet' },
      'Not enough reuse yet: the curve appears once chunks are asked for a second time.'));
    return false;
  }
  const gain = twice.hit_ratio.tokens - here.hit_ratio.tokens;
  fill('curve-say', gain >= 0.0005 ? 'With twice the memory you would hit ' : 'Twice the memory would not help: you would hit ',
    element('strong', { id: 'curve-twice' }, percent(twice.hit_ratio.tokens)), ' from memory, and now ',
    element('strong', { id: 'curve-here' }, percent(here.hit_ratio.tokens)),
    ` with ${bytes(here.bytes)} a node. No memory would hit more than ${percent(curve.most_hit_ratio.tokens)}.`);
  if ($('table-curve').closest('details').open) {
    table('table-curve', [['Memory a node'], ['Of now', 1], ['Hit, by tokens', 1], ['By bytes', 1]],
      [...curve.what_if.map((e) => [bytes(e.bytes), `× ${e.factor}`, percent(e.hit_ratio.tokens), percent(e.hit_ratio.bytes)]),
        ...curve.points.map((p) => [bytes(p.bytes), '', percent(1 - p.miss_ratio.tokens), percent(1 - p.miss_ratio.bytes)])]);
  }
  return true;
}

// What follows alone, and is asked for about as often, is one line with what it follows: a chunk is no place to branch.
function leafOf(node) {
  let last = node;
  let chunks = 1;
  while (last.children.length === 1 && last.children[0].per_second >= 0.8 * last.per_second) {
    [last] = last.children;
    chunks += 1;
  }
  const name = last.tokens > 0 ? `first ${last.tokens.toLocaleString('en')} tokens` : `${chunks} ${chunks === 1 ? 'chunk' : 'chunks'}`;
  const item = element('li', {}, element('div', { class: 'leaf' },
    element('span', { title: `space ${last.space}, chunk ${last.key}` }, name, ' ',
      element('span', { class: 'mono quiet' }, short(last.key))),
    element('span', { class: 'num' }, rate(node.per_second)),
    element('span', { class: 'num' }, `${percent(node.hit_ratio)} hit`)));
  if (last.children.length) item.append(element('ul', {}, ...last.children.map(leafOf)));
  return item;
}

export function drawPrefixes(overview, space) {
  const nodes = new Map(overview.hot_prefixes.filter((p) => !space || p.space === space).map((p) => [p.key, { ...p, children: [] }]));
  const roots = [];
  for (const node of nodes.values()) (nodes.get(node.parent)?.children ?? roots).push(node);
  if (!roots.length) { fill('prefixes', element('p', { class: 'quiet' }, 'No prefix is asked for often enough yet.')); return; }
  fill('prefixes', element('ul', {}, ...roots.slice(0, 24).map(leafOf)));
}

const stateTones = { active: 'good', joining: 'warn', draining: 'warn', down: 'bad' };

export function drawNodes(overview) {
  if (!overview.nodes.length) { fill('nodes', element('tbody', {}, element('tr', {}, element('td', { class: 'quiet' }, 'No nodes yet.')))); return; }
  table('nodes', [['Node'], ['State'], ['Zone'], ['Held', 1], ['Busy', 1], ['Sent', 1], ['Received', 1], ['Hit ratio', 1], ['Asked for', 1]],
    overview.nodes.map((node) => {
      const stale = node.state !== 'down' && !node.answered;
      const seen = node.answered_unix_ms ? `, last heard ${ago(node.answered_unix_ms, overview.taken_unix_ms)}` : '';
      return [
        element('span', { title: node.address }, node.id),
        element('span', { class: 'tag', 'data-tone': stale ? 'bad' : stateTones[node.state] ?? 'idle', title: node.error },
          stale ? `stale${seen}` : node.state),
        node.zone || '–',
        node.load ? bytes(node.load.held_bytes) : '–',
        node.load ? percent(node.load.busy_ratio) : '–',
        node.load ? `${bytes(node.load.sent_bytes_per_second)}/s` : '–',
        node.load ? `${bytes(node.load.received_bytes_per_second)}/s` : '–',
        node.counts && node.counts.asked.tokens > 0 ? percent(node.counts.hit_ratio.tokens) : '–',
        node.counts ? count(node.counts.asked.tokens) : '–',
      ];
    }));
}

// What its engines call it, or the beginning of its id.
export const spaceName = (space) => (space.model ? [space.model, space.adapter, space.tenant].filter(Boolean).join(' · ') : short(space.space));
const nameOf = (overview, id) => { const space = overview.spaces.find((s) => s.space === id); return space?.model ? spaceName(space) : short(id ?? ''); };

export function drawSpaces(overview) {
  if (!overview.spaces.length) { fill('spaces', element('tbody', {}, element('tr', {}, element('td', { class: 'quiet' }, 'No space has been asked for yet.')))); return; }
  table('spaces', [['Space'], ['Model'], ['Tenant'], ['Requests', 1], ['Asked for', 1], ['Hit ratio', 1], ['Delivered', 1], ['Stored', 1]],
    overview.spaces.map((space) => [
      element('span', { class: 'mono', title: space.space }, short(space.space)),
      element('span', { title: space.weights_revision ? `weights ${space.weights_revision}` : undefined }, [space.model, space.adapter].filter(Boolean).join(' · ') || '–'),
      space.tenant || '–',
      count(space.requests), count(space.asked.tokens),
      space.asked.tokens > 0 ? percent(space.hit_ratio.tokens) : '–',
      bytes(sum(space.delivered, 'bytes')), bytes(space.stored.bytes)]));
}

const refusalNotes = {
  no_profile: 'no profile was given', profile_failed: 'calibration found no good schedule', other_space: 'the profile is of another model',
  bad_profile: 'the profile is not valid', not_faster: 'a full prefill was as quick', nothing_held: 'nothing behind the front was held',
  failed: 'the engine could not go on',
};

// Shown once an engine has met a prompt of several segments.
export function drawBlend(total) {
  const { blend } = total;
  $('blend-card').hidden = !blend;
  if (!blend) return;
  const refused = Object.entries(blend.refused).filter(([, prompts]) => prompts >= 0.5).sort((a, b) => b[1] - a[1]);
  const all = refused.reduce((prompts, [, n]) => prompts + n, 0);
  text('blend-note', `${count(blend.prompts)} prompts blended, ${count(all)} not`);
  const parts = [['Reused at their place', blend.exact_tokens, 'c-accent'], ['Moved and reused', blend.moved_tokens - blend.recomputed_tokens, 'c-accent'],
    ['Moved, computed anew', blend.recomputed_tokens, 'c-second'], ['Computed: not held', blend.fresh_tokens - blend.late_tokens, 'c-miss'],
    ['Computed: came too late', blend.late_tokens, 'c-miss']];
  const row = (name, part, tone, value, title = '') => element('tr', {}, element('td', { class: 'name', title }, name),
    element('td', {}, bar(part, tone)), element('td', { class: 'n' }, percent(part)), element('td', { class: 'n quiet' }, value));
  fill('blend', element('caption', { class: 'visually-hidden' }, 'Tokens of blended prompts, and why prompts were not blended'),
    element('tbody', {},
      ...(blend.prompt_tokens > 0 ? parts.map(([name, tokens, tone]) => row(name, tokens / blend.prompt_tokens, tone, count(tokens))) : []),
      ...refused.map(([reason, prompts]) => row(`Not blended: ${refusalNotes[reason] ?? words(reason)}`, prompts / all, 'c-miss', count(prompts)))));
  text('blend-say', blend.full_layer_tokens > 0
    ? `${percent(blend.computed_ratio)} of what full prefills would have computed was computed. ${count(blend.discovered_segments)} of ${count(blend.segments)} segments were found without marks.` : '');
}

function eventText(event, overview) {
  const many = event.chunks ? `${count(event.chunks)} chunks, ${bytes(event.bytes)}` : '';
  const where = event.tier ? ` in ${tierNames[event.tier].toLowerCase()}` : '';
  switch (event.kind) {
    case 'node_state': return `${event.node} is ${event.state}`;
    case 'node_left': return `${event.node} has left the cluster`;
    case 'space_seen': return `${event.node} saw space ${nameOf(overview, event.space)} for the first time`;
    case 'eviction_burst': return `${event.node} evicted ${many}${where}`;
    case 'refused': return `${event.node} refused ${many}`;
    case 'corrupt': return `${event.node} dropped ${many}${where}: a checksum failed`;
    case 'spaces_full': return `${event.node} counts further spaces together`;
    default: return `${event.node}: ${words(event.kind)}`;
  }
}

export function drawEvents(overview) {
  const events = overview.events.slice(-60).reverse();
  if (!events.length) { fill('events', element('li', { class: 'quiet' }, 'Nothing has happened yet.')); return; }
  fill('events', ...events.map((event) => element('li', {},
    element('time', { datetime: new Date(event.unix_ms).toISOString(), title: fullTime(event.unix_ms) },
      eventTime(event.unix_ms, overview.taken_unix_ms)),
    element('span', {}, eventText(event, overview)))));
}

export function drawSpaceChoice(overview, chosen) {
  fill('space', element('option', { value: '' }, 'All spaces'),
    ...overview.spaces.filter((space) => space.has_history).map((space) =>
      element('option', { value: space.space }, space.model ? spaceName(space) : `Space ${short(space.space)}`)));
  $('space').value = chosen;
  if ($('space').value !== chosen) $('space').value = '';
}
