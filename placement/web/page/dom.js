// Changes to the document that leave alone what has not changed, so that nothing flickers and what is selected or
// focused stays. All text goes in as text, never as markup.

export const $ = (id) => document.getElementById(id);

export function text(node, value) {
  const target = typeof node === 'string' ? $(node) : node;
  if (target.textContent !== value) target.textContent = value;
}

// element('td', {class: 'n'}, 'text', child…)
export function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// Makes `current` what `wanted` is, and keeps every node of it that is of the same kind.
export function morph(current, wanted) {
  const now = [...current.childNodes];
  const next = [...wanted.childNodes];
  next.forEach((node, i) => {
    const old = now[i];
    if (!old) { current.append(node); return; }
    if (old.nodeType !== node.nodeType || old.nodeName !== node.nodeName) { old.replaceWith(node); return; }
    if (node.nodeType === Node.TEXT_NODE) {
      if (old.data !== node.data) old.data = node.data;
      return;
    }
    for (const { name } of [...old.attributes]) {
      if (!node.hasAttribute(name) && name !== 'style' && name !== 'open') old.removeAttribute(name);
    }
    for (const { name, value } of [...node.attributes]) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    morph(old, node);
  });
  now.slice(next.length).forEach((node) => node.remove());
}

export function fill(id, ...children) {
  const target = $(id);
  const wanted = target.cloneNode(false);
  wanted.append(...children);
  morph(target, wanted);
  // Widths by the object model: the page's policy allows no style attributes.
  for (const bar of target.querySelectorAll('[data-part]')) bar.style.width = `${bar.dataset.part}%`;
}

export const bar = (part, tone = 'c-accent') =>
  element('span', { class: `bar ${tone}`, 'aria-hidden': 'true' },
    element('span', { 'data-part': (100 * Math.min(1, Math.max(0, part || 0))).toFixed(1) }));

// columns: [[heading, isNumber], …]; rows: arrays of text or nodes.
export function table(id, columns, rows) {
  const cell = (name, value, number, extra = {}) =>
    element(name, { class: number ? 'n' : undefined, ...extra }, value);
  fill(id,
    element('thead', {}, element('tr', {}, ...columns.map(([head, number]) => cell('th', head, number, { scope: 'col' })))),
    element('tbody', {}, ...rows.map((row) =>
      element('tr', {}, ...row.map((value, i) => cell('td', value, columns[i][1]))))));
}
