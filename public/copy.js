/** Buttons that copy a command. */
import { $, say, show } from './dom.js'

const TOLD_MS = 1500

export function startCopying() {
  for (const button of document.querySelectorAll('[data-copy]'))
    button.addEventListener('click', () => void copy(button))
}

async function copy(button) {
  const command = $(button.dataset.copy)
  const name = button.textContent
  try {
    await navigator.clipboard.writeText(command.textContent)
    show(button, 'Copied')
    say('Copied')
    setTimeout(() => show(button, name), TOLD_MS)
  } catch {
    // over plain HTTP there is no clipboard: then it is ready to be copied by hand
    window.getSelection().selectAllChildren(command)
  }
}
