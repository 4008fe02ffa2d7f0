/**
 * Creates and changes nodes. Text is inserted as text, never as markup; nodes are written only where they
 * differ.
 * @module dom
 */
import { digitGroups } from './format.js';

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {string} [className]
 * @param {(Node|string)[]} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function element(tag, className = '', ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

/**
 * @param {Element} node
 * @param {string} text
 * @returns {boolean} whether it differed
 */
export function setText(node, text) {
  if (node.textContent === text) return false;
  node.textContent = text;
  return true;
}

/**
 * Writes a number with its digits in groups. The style sheet adds the gaps; the text stays the same.
 * @param {Element} node
 * @param {string} text
 */
export function setNumber(node, text) {
  if (node.textContent === text) return;
  const groups = digitGroups(text);
  if (groups.length === 1) node.textContent = text;
  else node.replaceChildren(...groups.map((group) => element('span', 'digits', group)));
}

/**
 * @param {HTMLElement} node
 * @param {string} name as in `dataset`
 * @param {string} value
 * @returns {boolean} whether it differed
 */
export function setData(node, name, value) {
  if (node.dataset[name] === value) return false;
  node.dataset[name] = value;
  return true;
}

/**
 * Orders the children with few moves.
 * @param {Element} parent
 * @param {Element[]} children all of them
 */
export function setChildren(parent, children) {
  const wanted = new Set(children);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  children.forEach((child, index) => {
    if (parent.children[index] !== child) parent.insertBefore(child, parent.children[index] ?? null);
  });
}
