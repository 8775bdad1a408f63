// @ts-check
/**
 * The form beside each operation: fill in, see the request as curl, send it, see the answer.
 *
 * api.js places one for each operation. Requests go to the server that the page came from and to no
 * other, and nothing of a request or an answer is kept beyond the page.
 */

import { el, snippet } from './dom.js';
import { bodies, curl, example, flat, isFile, resolve, sample } from './openapi.js';

/** @typedef {import('./openapi.js').Json} Json */
/** @typedef {import('./openapi.js').Wire} Wire */
/** @typedef {() => (string | File)[]} Read */
/** @typedef {{ where: string, name: string, file: boolean, required: boolean, node: HTMLElement, read: Read }} Control */

/** The headers of an answer that are worth a line. */
const HEADERS =
  ['content-type', 'content-length', 'location', 'retry-after', 'etag', 'allow', 'idempotency-replayed', 'x-request-id'];

/** The most characters of a text, and of one line of a stream, that are shown. */
const TEXT = 200_000;
const LINE = 600;

/** The most lines of a stream that stay on the page. */
const LINES = 500;

/**
 * An input for one parameter or field. An empty one is not sent.
 *
 * @param {Json} doc
 * @param {string} id
 * @param {{ where: string, name: string, required: boolean, schema: Json, value?: any }} field
 * @returns {Control}
 */
function control(doc, id, { where, name, required, schema, value }) {
  const s = flat(doc, schema);
  const list = s.types.includes('array');
  const item = list ? flat(doc, s.items) : s;
  const file = isFile(doc, item);
  const known = item.enum?.filter((/** @type {any} */ choice) => choice !== null);
  const choices = item.types.includes('boolean') ? [true, false] : known;
  const preset = value === undefined ? '' : [value].flat().map(asText).join('\n');
  const hint = s.default === undefined ? '' : `default: ${asText(s.default)}`;
  const common = { id, required: required && where === 'path', placeholder: hint, autocomplete: 'off', spellcheck: 'false' };
  /** @type {any} */
  let input;
  if (file) {
    input = el('input.input', { id, type: 'file', multiple: list, accept: 'image/*' });
  } else if (choices && !list) {
    const empty = !required && el('option', { value: '' }, hint || 'not sent');
    input = el('select.input', { id }, empty, ...choices.map((/** @type {any} */ choice) =>
      el('option', { selected: asText(choice) === preset }, asText(choice))));
  } else if (list || item.types.includes('object') || item.maxLength >= 200) {
    input = el('textarea.input', { ...common, rows: 2, placeholder: hint || (list && 'one a line') });
    input.value = preset;
  } else {
    const digits = item.types.includes('integer') || item.types.includes('number');
    input = el('input.input', { ...common, inputmode: digits && 'decimal' });
    input.value = preset;
  }
  const node = el('div.field', null, el('label', { for: id }, name, required && el('span.must', null, ' required')), input);
  const read = () => {
    if (file) return [...input.files];
    const texts = list ? input.value.split('\n') : [input.value];
    return texts.filter((/** @type {string} */ text) => text !== '');
  };
  return { where, name, file, required, node, read };
}

/** @param {any} value */
const asText = (value) => (typeof value === 'object' ? JSON.stringify(value) : String(value));

/**
 * The controls of one media type's body.
 *
 * @param {Json} doc
 * @param {string} id
 * @param {string} type
 * @param {Json} media
 * @returns {Control[]}
 */
function bodyControls(doc, id, type, media) {
  const given = example(doc, media);
  if (!type.startsWith('multipart/')) {
    const area = /** @type {HTMLTextAreaElement} */ (el('textarea.input.code', { id, rows: 8, spellcheck: 'false' }));
    area.value = JSON.stringify(given ?? sample(doc, media.schema, false), null, 2);
    const node = el('div.field', null, el('label', { for: id }, `body, ${type}`), area);
    return [{ where: 'json', name: '', file: false, required: true, node, read: () => [area.value] }];
  }
  const { properties, required } = flat(doc, media.schema);
  return Object.entries(properties).map(([name, schema]) => {
    const wanted = required.includes(name) && !isFile(doc, schema);
    const value = given?.[name] ?? example(doc, flat(doc, schema)) ?? (wanted ? sample(doc, schema, false) : undefined);
    return control(doc, `${id}-${name}`, { where: 'part', name, required: required.includes(name), schema, value });
  });
}

/**
 * Request and form of one operation.
 *
 * @param {Json} doc
 * @param {import('./openapi.js').Operation} op
 */
export function tryIt(doc, op) {
  const good = Object.entries(op.about.responses ?? {}).filter(([status]) => status.startsWith('2'));
  const answers = good.flatMap(([, answer]) => Object.keys(resolve(doc, answer).content ?? {}));
  const fields = op.parameters.filter((p) => p.in !== 'cookie').map((p) => {
    const schema = p.schema ?? {};
    const value = example(doc, p) ?? example(doc, flat(doc, schema));
    const required = p.required === true;
    return control(doc, `${op.id}-${p.in}-${p.name}`, { where: p.in, name: p.name, required, schema, value });
  });
  const forms = bodies(doc, op).map(([type, media], i) => {
    const controls = bodyControls(doc, `${op.id}-body-${i}`, type, media);
    return { type, controls, node: el('div.fields', { hidden: i > 0 }, ...controls.map((c) => c.node)) };
  });
  const tabs = forms.map(({ type, node }, i) => {
    const tab = el('button', { type: 'button', 'aria-pressed': String(i === 0) }, type);
    tab.addEventListener('click', () => {
      forms.forEach((form) => (form.node.hidden = form.node !== node));
      tabs.forEach((other) => other.setAttribute('aria-pressed', String(other === tab)));
      redraw();
    });
    return tab;
  });
  const method = op.method.toUpperCase();
  const send = el(`button.btn.${method === 'DELETE' ? 'danger-fill' : 'primary'}`, { type: 'submit' }, `Send ${method}`);
  const stop = el('button.btn', { type: 'button', hidden: true }, 'Stop');
  const line = el('p.answer-line', { role: 'status' });
  let shown = el('div.answer');
  const form = el('form.try', { 'aria-label': `Try ${method} ${op.path}`, autocomplete: 'off' },
    el('h4', null, 'Try it'),
    fields.length > 0 && el('div.fields', null, ...fields.map((c) => c.node)),
    tabs.length > 1 && el('div.seg', { role: 'group', 'aria-label': 'Type of the body' }, ...tabs),
    ...forms.map((f) => f.node), el('div.row', null, send, stop), line, shown);
  const request = snippet(`${op.path} as a curl command`);

  const current = () => [...fields, ...(forms.find((f) => !f.node.hidden)?.controls ?? [])];
  const redraw = () => request.set(curl(location.origin, wire(op, current()), answers));
  form.addEventListener('input', redraw);
  redraw();

  /** @type {AbortController | undefined} */
  let running;
  stop.addEventListener('click', () => running?.abort());
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    running?.abort();
    const mine = (running = new AbortController());
    stop.hidden = false;
    shown.querySelectorAll('img').forEach((img) => URL.revokeObjectURL(img.src));
    const out = el('div.answer'); // its own for each request: a late answer must not show up under the next
    shown.replaceWith(out);
    shown = out;
    const tell = (/** @type {(Node | string)[]} */ ...words) => mine === running && line.replaceChildren(...words);
    try {
      await exchange(op, current(), mine.signal, tell, out);
    } catch (error) {
      if (mine.signal.aborted) tell('Stopped.');
      else tell(el('span.tag.bad', null, 'No answer'), ` ${error instanceof Error ? error.message : error}`);
    }
    if (mine === running) stop.hidden = true;
  });
  return el('div.side', null, el('h4', null, 'Request'), request.box, form);
}

/**
 * The request that the controls make, in words: a picture is named, not read.
 *
 * @param {import('./openapi.js').Operation} op
 * @param {Control[]} controls
 * @returns {Wire}
 */
function wire(op, controls) {
  const query = new URLSearchParams();
  /** @type {Wire} */
  const made = { method: op.method.toUpperCase(), path: op.path, headers: [] };
  for (const { where, name, file, read } of controls) {
    const texts = read().map((value) => (typeof value === 'string' ? value : 'photo.jpg'));
    if (where === 'path') made.path = made.path.replace(`{${name}}`, encodeURIComponent(texts[0] ?? name.toUpperCase()));
    if (where === 'query') texts.forEach((text) => query.append(name, text));
    if (where === 'header') made.headers.push(...texts.map((text) => /** @type {[string, string]} */ ([name, text])));
    if (where === 'json') made.json = texts[0] ?? '';
    if (where === 'part') {
      // A picture is what a form is for, even where the document does not insist.
      const shown = file && !texts.length ? ['photo.jpg'] : texts;
      made.parts = [...(made.parts ?? []), ...shown.map((value) => ({ name, value, file }))];
    }
  }
  if (query.size) made.path += `?${query}`;
  return made;
}

/**
 * Sends the request and shows the answer as it comes.
 *
 * @param {import('./openapi.js').Operation} op
 * @param {Control[]} controls
 * @param {AbortSignal} signal
 * @param {(...words: (Node | string)[]) => void} tell
 * @param {HTMLElement} shown
 */
async function exchange(op, controls, signal, tell, shown) {
  const { method, path, headers, parts, json } = wire(op, controls);
  const sent = new Headers(headers);
  /** @type {BodyInit | undefined} */
  let body = json;
  if (json !== undefined) sent.set('content-type', 'application/json');
  if (parts) {
    const data = (body = new FormData());
    for (const { where, name, read } of controls) {
      if (where === 'part') read().forEach((value) => data.append(name, value));
    }
  }
  tell('Waiting for the answer.');
  const started = performance.now();
  const answer = await fetch(path, { method, headers: sent, body, signal, cache: 'no-store' });
  const grade = answer.ok ? 'good' : answer.status < 500 ? 'warn' : 'bad';
  const status = el(`span.tag.${grade}`, null, `${answer.status} ${answer.statusText}`.trim());
  const known = HEADERS.filter((name) => answer.headers.has(name));
  shown.append(el('dl.headers', null,
    ...known.flatMap((name) => [el('dt', null, name), el('dd', null, answer.headers.get(name))])));
  const type = answer.headers.get('content-type') ?? '';
  if (type.startsWith('text/event-stream')) {
    tell(status, ' Streaming.');
    const lines = await stream(answer, shown);
    tell(status, ` The stream ended after ${lines} lines and ${seconds(started)}.`);
    return;
  }
  const blob = await answer.blob();
  tell(status, ` ${seconds(started)}, ${blob.size.toLocaleString('en')} bytes`);
  if (blob.size) shown.append(await preview(blob, type));
}

/** @param {number} started */
function seconds(started) {
  const ms = performance.now() - started;
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** What a body looks like. @param {Blob} blob @param {string} type */
async function preview(blob, type) {
  if (type.startsWith('image/')) {
    return el('img', { src: URL.createObjectURL(blob), alt: 'The picture that the server answered' });
  }
  if (!/json|text/.test(type)) return el('p.help', null, `A body of type ${type || 'unknown'} is not shown.`);
  let text = await blob.slice(0, TEXT).text();
  try {
    if (type.includes('json')) text = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    // Cut, or not JSON after all: shown as it came.
  }
  return snippet('Body of the answer', blob.size > TEXT ? `${text}\n…` : text).box;
}

/** Shows a stream of events line by line. @param {Response} answer @param {HTMLElement} shown */
async function stream(answer, shown) {
  const out = el('pre.stream', { tabindex: 0, role: 'log', 'aria-label': 'Events' });
  shown.append(out);
  const reader = /** @type {ReadableStream<Uint8Array>} */ (answer.body).getReader();
  const decoder = new TextDecoder();
  let rest = '';
  let count = 0;
  for (;;) {
    const { done, value } = await reader.read();
    rest += decoder.decode(value, { stream: !done });
    const lines = rest.split('\n');
    rest = done ? '' : lines.pop() ?? '';
    const follow = out.scrollHeight - out.scrollTop - out.clientHeight < 40;
    for (const line of lines) out.append(line.length > LINE ? `${line.slice(0, LINE)}…\n` : `${line}\n`);
    count += lines.length;
    while (out.childNodes.length > LINES) out.firstChild?.remove();
    if (follow) out.scrollTop = out.scrollHeight;
    if (done) return count;
  }
}
