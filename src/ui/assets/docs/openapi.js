// @ts-check
/**
 * Reads an OpenAPI 3.1 document as utoipa writes it, and words requests for a command line.
 *
 * Pure functions over plain values, called by api.js and try.js. Nothing here may touch the page or
 * the network, or trust that a document is complete or free of cycles.
 */

/** @typedef {Record<string, any>} Json */
/** @typedef {{ id: string, method: string, path: string, tag: string, about: Json, parameters: Json[] }} Operation */
/** @typedef {{ heading: string } | { name: string, required: boolean, schema: Json }} Row */
/** @typedef {{ name: string, value: string, file: boolean }} Part */
/** @typedef {{ method: string, path: string, headers: [string, string][], parts?: Part[], json?: string }} Wire */

const METHODS = ['get', 'post', 'put', 'patch', 'delete'];

/** How deep schemas are followed. */
const DEPTH = 8;

/** What a `$ref` within the document points at. @param {Json} doc @param {any} node @returns {Json} */
export function resolve(doc, node, depth = 0) {
  if (typeof node?.$ref !== 'string' || depth > DEPTH) return node ?? {};
  const keys = node.$ref.split('/').slice(1);
  const plain = (/** @type {string} */ key) => decodeURIComponent(key).replaceAll('~1', '/').replaceAll('~0', '~');
  const target = keys.reduce((/** @type {any} */ at, /** @type {string} */ key) => at?.[plain(key)], doc);
  const { $ref, ...beside } = node;
  return { title: plain(keys.at(-1) ?? ''), ...resolve(doc, target, depth + 1), ...beside };
}

/**
 * A schema without `$ref`, `allOf` and null: `types` are the others of its types, `choices` the
 * others of its alternatives where there are several, `nullable` tells whether null is allowed.
 *
 * @param {Json} doc
 * @param {any} schema
 * @returns {Json}
 */
export function flat(doc, schema, depth = 0) {
  const { allOf = [], oneOf, anyOf, ...own } = resolve(doc, schema);
  if (depth > DEPTH) return { types: [], choices: [] };
  const all = oneOf ?? anyOf ?? [];
  const choices = all.filter((/** @type {Json} */ choice) => resolve(doc, choice).type !== 'null');
  const parts = [...allOf, ...(choices.length === 1 ? choices : [])];
  const layers = [...parts.map((part) => flat(doc, part, depth + 1)), own];
  const types = layers.flatMap((layer) => layer.types ?? layer.type ?? []);
  const named = layers.slice(0, -1).flatMap((layer) => layer.choices);
  return Object.assign({}, ...layers, {
    types: [...new Set(types)].filter((type) => type !== 'null'),
    nullable: types.includes('null') || choices.length < all.length || layers.some((layer) => layer.nullable),
    choices: choices.length > 1 ? [...named, ...choices] : named,
    properties: Object.assign({}, ...layers.map((layer) => layer.properties)),
    required: layers.flatMap((layer) => layer.required ?? []),
  });
}

/** Whether a schema stands for bytes. @param {Json} doc @param {any} schema */
export function isFile(doc, schema) {
  const { format, contentMediaType, contentEncoding } = flat(doc, schema);
  return format === 'binary' || (contentMediaType === 'application/octet-stream' && !contentEncoding);
}

/** A type in words. @param {Json} doc @param {any} schema @returns {string} */
export function typeText(doc, schema, depth = 0) {
  const s = flat(doc, schema);
  let text = s.types.join(' or ') || (Object.keys(s.properties).length ? 'object' : 'anything');
  if (depth > DEPTH) return text;
  if (s.choices.length) {
    const each = s.choices.map((/** @type {Json} */ choice) => typeText(doc, choice, depth + 1));
    text = [...new Set(each)].join(' or ');
  } else if (isFile(doc, schema)) text = 'file';
  else if (s.types.includes('array')) text = `array of ${typeText(doc, s.items, depth + 1)}`;
  else if (s.additionalProperties) text = `map to ${typeText(doc, s.additionalProperties, depth + 1)}`;
  else if (s.format) text += ` (${s.format})`;
  return s.nullable ? `${text} or null` : text;
}

/** What values are allowed, in words. @param {Json} doc @param {any} schema @returns {string[]} */
export function limits(doc, schema) {
  const s = flat(doc, schema);
  const range = (/** @type {any} */ low, /** @type {any} */ high, unit = '') => {
    if (low == null && high == null) return [];
    if (low === high) return [`exactly ${low}${unit}`];
    if (low == null) return [`at most ${high}${unit}`];
    return [high == null ? `at least ${low}${unit}` : `${low} to ${high}${unit}`];
  };
  return [
    ...(s.enum ? [s.enum.filter((/** @type {any} */ v) => v !== null).join(', ')] : []),
    ...(s.const != null ? [String(s.const)] : []),
    ...range(s.minimum, s.maximum),
    ...(s.exclusiveMinimum != null ? [`more than ${s.exclusiveMinimum}`] : []),
    ...(s.exclusiveMaximum != null ? [`less than ${s.exclusiveMaximum}`] : []),
    ...(s.multipleOf != null ? [`a multiple of ${s.multipleOf}`] : []),
    ...range(s.minLength, s.maxLength, ' characters'),
    ...range(s.minItems, s.maxItems, ' items'),
    ...(s.pattern ? [`pattern ${s.pattern}`] : []),
    ...(s.types.includes('array') && s.items ? limits(doc, s.items) : []),
  ];
}

/**
 * The fields of a schema with those inside them, as `error.code` and `images[].id`. Alternatives
 * follow each other, each under a heading.
 *
 * @param {Json} doc
 * @param {any} schema
 * @returns {Row[]}
 */
export function rows(doc, schema, prefix = '', within = /** @type {any[]} */ ([])) {
  if (endless(schema, within)) return [];
  const s = flat(doc, schema);
  const inner = [...within, schema?.$ref];
  if (s.types.includes('array') && s.items) return rows(doc, s.items, `${prefix}[]`, inner);
  const own = Object.entries(s.properties).flatMap(([key, value]) => {
    const name = prefix ? `${prefix}.${key}` : key;
    return [{ name, required: s.required.includes(key), schema: value }, ...rows(doc, value, name, inner)];
  });
  const others = s.choices.flatMap((/** @type {Json} */ choice) => {
    const inside = rows(doc, choice, prefix, inner);
    return inside.length ? [{ heading: [prefix, nameOf(doc, choice)].filter(Boolean).join(': ') }, ...inside] : [];
  });
  return [...own, ...others];
}

/** Whether a schema lies within itself, or too deep. @param {any} schema @param {any[]} within */
const endless = (schema, within) => within.length > DEPTH || (schema?.$ref && within.includes(schema.$ref));

/** What tells an alternative from the others. @param {Json} doc @param {Json} choice */
function nameOf(doc, choice) {
  const s = flat(doc, choice);
  for (const [key, value] of Object.entries(s.properties)) {
    const { const: only, enum: [first, second] = [] } = flat(doc, value);
    if (only != null || (first != null && second === undefined)) return `where ${key} is ${only ?? first}`;
  }
  return s.title ? `as ${s.title}` : 'or';
}

/** The first example of a schema, parameter or media type. @param {Json} doc @param {any} node */
export function example(doc, node) {
  if (node?.example !== undefined) return node.example;
  if (Array.isArray(node?.examples)) return node.examples[0];
  const first = Object.values(node?.examples ?? {})[0];
  return first && resolve(doc, first).value;
}

/**
 * A value that fits a schema: its example, else its default, else one made up. `all` fills in the
 * optional fields too, where a request would leave them to the server. Nothing where a schema lies
 * within itself.
 *
 * @param {Json} doc
 * @param {any} schema
 * @param {boolean} all
 * @returns {any}
 */
export function sample(doc, schema, all, within = /** @type {any[]} */ ([])) {
  if (endless(schema, within)) return undefined;
  const s = flat(doc, schema);
  const inner = [...within, schema?.$ref];
  const given = example(doc, s) ?? s.const ?? s.default ?? s.enum?.[0];
  if (given !== undefined) return given;
  if (s.choices.length && !Object.keys(s.properties).length) return sample(doc, s.choices[0], all, inner);
  if (s.types.includes('array')) return [sample(doc, s.items, all, inner)].filter((item) => item !== undefined);
  if (s.types.includes('integer') || s.types.includes('number')) return s.minimum ?? 0;
  if (s.types.includes('boolean')) return false;
  if (s.types.includes('string')) return s.format === 'date-time' ? '2026-01-31T12:00:00Z' : 'text';
  const kept = Object.entries(s.properties).filter(([key, value]) =>
    all || s.required.includes(key) || example(doc, flat(doc, value)) !== undefined);
  return Object.fromEntries(kept.map(([key, value]) => [key, sample(doc, value, all, inner)]));
}

/**
 * The bodies that an operation takes, by media type. A form comes first: a picture is a file.
 *
 * @param {Json} doc
 * @param {Operation} op
 * @returns {[string, Json][]}
 */
export function bodies(doc, op) {
  const form = (/** @type {string} */ type) => Number(type.startsWith('multipart/'));
  return Object.entries(resolve(doc, op.about.requestBody).content ?? {}).sort(([a], [b]) => form(b) - form(a));
}

/** All operations, in the order of the document's tags, then of its paths. @param {Json} doc @returns {Operation[]} */
export function operations(doc) {
  const found = Object.entries(doc.paths ?? {}).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => {
      const about = item[method];
      const parameters = [...(item.parameters ?? []), ...(about.parameters ?? [])].map((p) => resolve(doc, p));
      const id = `${method}${path}`.replace(/[^a-z0-9]+/gi, '-').replace(/-$/, '').toLowerCase();
      return { id, method, path, tag: about.tags?.[0] ?? 'Other', about, parameters };
    }));
  const order = [...(doc.tags ?? []).map((/** @type {Json} */ tag) => tag.name), ...found.map((op) => op.tag)];
  return found.sort((a, b) => order.indexOf(a.tag) - order.indexOf(b.tag));
}

/** @param {string} word */
const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`);

/**
 * A request as a line of curl.
 *
 * @param {string} origin
 * @param {Wire} wire
 * @param {string[]} answers media types of a good answer
 */
export function curl(origin, wire, answers) {
  const body = wire.parts ?? wire.json;
  const picture = answers.find((type) => type.startsWith('image/'));
  const implied = body === undefined ? 'GET' : 'POST';
  const words = [
    ...(answers.includes('text/event-stream') ? ['-N'] : []),
    ...(wire.method === implied ? [] : [`-X ${wire.method}`]),
    quoted(origin + wire.path),
  ];
  const lines = wire.headers.map(([name, value]) => `-H ${quoted(`${name}: ${value}`)}`);
  if (wire.json !== undefined) lines.push("-H 'Content-Type: application/json'", `-d ${quoted(wire.json)}`);
  for (const { name, value, file } of wire.parts ?? []) {
    // curl reads @, < and ; of a -F value itself.
    const flag = !file && /^[@<]|;/.test(value) ? '--form-string' : '-F';
    lines.push(`${flag} ${quoted(`${name}=${file ? '@' : ''}${value}`)}`);
  }
  if (picture) lines.push(`-o picture.${picture.slice(6).replace('jpeg', 'jpg')}`);
  return [`curl ${words.join(' ')}`, ...lines].join(' \\\n  ');
}
