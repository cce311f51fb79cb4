/** The token that was given to a page: kept for this session of this tab alone, and for all pages. */
const KEY = 'ringside token'

/** Empty where there is none. */
export function keptToken() {
  return sessionStorage.getItem(KEY) ?? ''
}

/** Keeps another one; with an empty text none. */
export function keepToken(text) {
  if (text) sessionStorage.setItem(KEY, text)
  else sessionStorage.removeItem(KEY)
}
