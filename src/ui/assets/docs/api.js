// @ts-check
/**
 * The API page: reads /openapi.json once and draws it, a card for each operation.
 *
 * index.html loads it. The document is the only source: no operation is named here.
 */

import { breakable, el, inline, prose, snippet } from './dom.js';
import { bodies, example, flat, limits, operations, resolve, rows, sample, typeText } from './openapi.js';
import { tryIt } from './try.js';

/** @typedef {import('./openapi.js').Json} Json */
/** @typedef {import('./openapi.js').Operation} Operation */

const main = /** @type {HTMLElement} */ (document.getElementById('main'));
const toc = /** @type {HTMLElement} */ (document.getElementById('toc'));
const list = /** @type {HTMLElement} */ (document.getElementById('toc-list'));
const filter = /** @type {HTMLInputElement} */ (document.getElementById('filter'));

/** @param {string[]} heads @param {HTMLElement[]} body */
const table = (heads, body) => el('table', null,
  el('thead', null, el('tr', null, ...heads.map((head) => el('th', { scope: 'col' }, head)))), el('tbody', null, ...body));

/** @param {Json} doc @param {string} name @param {boolean} required @param {Json} schema @param {string} [place] */
function fieldRow(doc, name, required, schema, place) {
  const s = flat(doc, schema);
  const given = example(doc, s);
  const facts = [
    ...limits(doc, schema).map((limit) => ['Allowed', limit]),
    ...(s.default === undefined ? [] : [['Default', JSON.stringify(s.default)]]),
    ...(given === undefined ? [] : [['Example', JSON.stringify(given)]]),
  ];
  return el('tr', null,
    el('th', { scope: 'row' }, el('code', null, ...breakable(name)),
      el('span.marks', null, place && el('span.tag', null, place), required && el('span.must', null, 'required'))),
    el('td.type', null, typeText(doc, schema)),
    el('td', null, ...prose(s.description),
      facts.length > 0 && el('dl.facts', null,
        ...facts.flatMap(([key, value]) => [el('dt', null, key), el('dd', null, value)]))));
}

/**
 * Parameters and headers describe themselves outside their schema.
 *
 * @param {Json} doc
 * @param {string} name
 * @param {Json} about
 */
function parameterRow(doc, name, about) {
  const schema = flat(doc, about.schema);
  const { description = schema.description, required = false } = about;
  const given = example(doc, about) ?? example(doc, schema);
  return fieldRow(doc, name, required, { ...schema, description, example: given }, about.in);
}

/**
 * A body of one media type: its type, its fields, and the example that is given or `made`.
 *
 * @param {Json} doc
 * @param {string} type
 * @param {Json} media
 * @param {boolean} made
 */
function bodyOf(doc, type, { schema = {}, ...media }, made) {
  const given = example(doc, media) ?? (made && type.includes('json') ? sample(doc, schema, true) : undefined);
  const found = rows(doc, schema).map((row) => ('heading' in row
    ? el('tr.variant', null, el('th', { colspan: 3, scope: 'rowgroup' }, row.heading))
    : fieldRow(doc, row.name, row.required, row.schema)));
  return [
    el('p.media', null, el('code', null, type), !type.startsWith('image/') && ` ${typeText(doc, schema)}`),
    found.length > 0 && table(['Field', 'Type', 'Meaning'], found),
    given !== undefined && snippet(`Example of ${type}`, typeof given === 'string' ? given : JSON.stringify(given, null, 2)).box,
  ];
}

/** @param {Json} doc @param {string} status @param {Json} answer */
function response(doc, status, answer) {
  const grade = { 2: 'good', 5: 'bad' }[status[0]] ?? 'warn';
  const media = Object.entries(answer.content ?? {});
  const headers = Object.entries(answer.headers ?? {}).map(([name, header]) => parameterRow(doc, name, resolve(doc, header)));
  const head = [el(`span.tag.${grade}`, null, status), el('span.what', null, ...inline(answer.description ?? ''))];
  if (!media.length && !headers.length) return el('div.fold', null, ...head);
  return el('details.fold', { open: grade === 'good' }, el('summary', null, ...head),
    headers.length > 0 && table(['Header', 'Type', 'Meaning'], headers),
    ...media.flatMap(([type, about]) => bodyOf(doc, type, about, true)));
}

/** @param {Json} doc @param {Operation} op */
function card(doc, op) {
  const { summary, description, deprecated, requestBody, responses = {} } = op.about;
  const body = resolve(doc, requestBody);
  const kinds = bodies(doc, op);
  const parameters = op.parameters.map((about) => parameterRow(doc, about.name, about));
  const docs = el('div.text', null, ...prose(description),
    parameters.length > 0 && el('h4', null, 'Parameters'),
    parameters.length > 0 && table(['Name', 'Type', 'Meaning'], parameters),
    kinds.length > 0 && el('h4', null, 'Body', body.required && el('span.must', null, ' required')),
    ...prose(body.description),
    ...kinds.map(([type, about], i) => el('details.fold', { open: i === 0 },
      el('summary', null, el('code', null, type)), ...bodyOf(doc, type, about, false).slice(1))),
    el('h4', null, 'Answers'),
    ...Object.entries(responses).map(([status, answer]) => response(doc, status, resolve(doc, answer))));
  return el('details.op', { id: op.id },
    el('summary', null, el(`span.method.${op.method}`, null, op.method.toUpperCase()), el('h3', null, ...breakable(op.path)),
      el('span.sum', null, ...inline(summary ?? '')), deprecated && el('span.tag.warn', null, 'deprecated')),
    el('div.op-body', null, docs, tryIt(doc, op)));
}

/** @param {Json} doc */
function draw(doc) {
  const ops = operations(doc);
  const codes = /** @type {Json[]} */ (doc['x-error-codes'] ?? []);
  main.replaceChildren(
    el('div.intro', null, el('h1', null, doc.info?.title ?? 'API'),
      el('span.tag', null, `version ${doc.info?.version ?? 'unknown'}`)),
    ...prose(doc.info?.description),
    el('p.help', null, 'Address: ', el('code', null, location.origin), `. ${ops.length} operations.`));
  list.replaceChildren();
  for (const tag of new Set(ops.map((op) => op.tag))) {
    const of = ops.filter((op) => op.tag === tag);
    const about = (doc.tags ?? []).find((/** @type {Json} */ entry) => entry.name === tag);
    main.append(el('section', null, el('h2', null, tag), ...prose(about?.description), ...of.map((op) => card(doc, op))));
    list.append(el('section', null, el('h2', null, tag), ...of.map((op) => {
      const words = `${op.method} ${op.path} ${op.about.summary ?? ''}`.toLowerCase();
      return el('a', { href: `#${op.id}`, title: op.about.summary, 'data-words': words },
        el(`span.method.${op.method}`, null, op.method.toUpperCase()), el('span.path', null, op.path));
    })));
  }
  if (codes.length) {
    const lines = codes.map(({ code, status, when }) => el('tr', null,
      el('th', { scope: 'row' }, el('code', null, code)), el('td', null, String(status)), el('td', null, ...inline(when ?? ''))));
    main.append(el('section', { id: 'error-codes' }, el('h2', null, 'Error codes'),
      el('div.plate', null, table(['Code', 'Status', 'When'], lines))));
    list.append(el('section', null, el('h2', null, 'Reference'),
      el('a', { href: '#error-codes', 'data-words': 'error codes' }, 'Error codes')));
  }
  for (const op of main.querySelectorAll('details.op')) {
    op.addEventListener('toggle', () => {
      if (/** @type {HTMLDetailsElement} */ (op).open) history.replaceState(null, '', `#${op.id}`);
      mark();
    });
  }
}

/** Marks the place in the contents. */
function mark() {
  for (const link of list.querySelectorAll('a')) {
    if (link.hash === location.hash) link.setAttribute('aria-current', 'location');
    else link.removeAttribute('aria-current');
  }
}

/** Opens what the address names. */
function show() {
  const target = document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) target.open = true;
  target?.scrollIntoView();
  mark();
}

function search() {
  const words = filter.value.toLowerCase().split(/\s+/);
  for (const section of list.children) {
    const links = /** @type {HTMLElement[]} */ ([...section.querySelectorAll('a')]);
    for (const link of links) link.hidden = !words.every((word) => link.dataset.words?.includes(word));
    /** @type {HTMLElement} */ (section).hidden = links.every((link) => link.hidden);
  }
}

async function load() {
  main.setAttribute('aria-busy', 'true');
  try {
    const answer = await fetch('/openapi.json');
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    draw(await answer.json());
    search();
    show();
  } catch (error) {
    const again = el('button.btn', { type: 'button' }, 'Try again');
    again.addEventListener('click', load);
    const reason = error instanceof Error ? error.message : String(error);
    const words = `The description at /openapi.json cannot be read: ${reason}. Is the server running?`;
    main.replaceChildren(el('p.note.bad', { role: 'alert' }, words), again);
  }
  main.removeAttribute('aria-busy');
}

filter.addEventListener('input', search);
list.addEventListener('click', () => toc.hidePopover());
addEventListener('hashchange', show);
load();
