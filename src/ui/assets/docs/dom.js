// @ts-check
/**
 * Elements of the API page, made of text alone.
 *
 * api.js and try.js build everything with these. Text becomes text nodes: nothing here, or in a
 * module that calls it, may parse a string as HTML.
 */

/** @typedef {Node | string | null | undefined | false} Child */

/**
 * An element: `el('p.note.bad', { role: 'status' }, 'text', child)`. Attributes that are `false` or
 * missing, and empty children, are left out.
 *
 * @param {string} what tag and classes
 * @param {Record<string, string | number | boolean | null | undefined> | null} [attributes]
 * @param {...Child} children
 * @returns {HTMLElement}
 */
export function el(what, attributes, ...children) {
  const [tag, ...classes] = what.split('.');
  const node = document.createElement(tag);
  if (classes.length) node.className = classes.join(' ');
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== false && value != null) node.setAttribute(name, value === true ? '' : String(value));
  }
  node.append(.../** @type {(Node | string)[]} */ (children.filter((child) => child)));
  return node;
}

/** Text in which `backticks` mark code. @param {string} text @returns {(Node | string)[]} */
export const inline = (text) => text.split('`').map((part, i) => (i % 2 ? el('code', null, part) : part));

/**
 * Descriptions: paragraphs, headings that begin with `## `, lists of lines that begin with `- ` or
 * with a number, and code.
 *
 * @param {string | undefined} text
 */
export function prose(text) {
  const blocks = (text ?? '').split(/\n\s*\n|\n(?=- |\d+\. )/).map((block) => block.trim()).filter(Boolean);
  return blocks.map((block) => {
    if (block.startsWith('## ')) return el('h2.within', null, block.slice(3));
    if (block.startsWith('- ')) return el('p.item', null, ...inline(block.slice(2)));
    return el('p', null, ...inline(block));
  });
}

/** A path or the name of a field, which may break after its slashes and dots. @param {string} path */
export const breakable = (path) =>
  path.split(/(?<=[/.\]])/).flatMap((part) => [part, document.createElement('wbr')]);

/**
 * Text to read and to copy. Where the browser gives no clipboard, the text is selected instead.
 *
 * @param {string} label what it is, for people who do not see it
 * @param {string} [text]
 */
export function snippet(label, text = '') {
  const code = el('code', null, text);
  const button = el('button.btn.ghost.copy', { type: 'button', 'aria-label': `Copy: ${label}` }, 'Copy');
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(code.textContent ?? '');
      button.textContent = 'Copied';
    } catch {
      getSelection()?.selectAllChildren(code);
      button.textContent = 'Selected';
    }
    setTimeout(() => (button.textContent = 'Copy'), 1500);
  });
  const box = el('div.snippet', null, el('pre', { tabindex: 0, role: 'region', 'aria-label': label }, code), button);
  return { box, set: (/** @type {string} */ next) => (code.textContent = next) };
}
