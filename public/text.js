const formats = new Map()

/** What is no number is a dash. `digits` behind the point. */
export function number(value, digits = 0, unit = '') {
  if (typeof value !== 'number') return '–'
  // to make one takes far longer than to use it
  if (!formats.has(digits)) {
    const options = { minimumFractionDigits: digits, maximumFractionDigits: digits }
    formats.set(digits, new Intl.NumberFormat('en', options))
  }
  return formats.get(digits).format(value) + unit
}

export function count(many, what) {
  return `${number(many)} ${what}${many === 1 ? '' : 's'}`
}

export function gib(bytes) {
  return number(bytes / 2 ** 30, 1, ' GiB')
}

export function bytesText(bytes) {
  if (bytes < 1024) return number(bytes, 0, ' B')
  return bytes < 2 ** 20 ? number(bytes / 1024, 1, ' KiB') : number(bytes / 2 ** 20, 1, ' MiB')
}

export function duration(seconds) {
  const minutes = Math.floor(seconds / 60)
  const hours = Math.floor(minutes / 60)
  const days = Math.floor(hours / 24)
  if (days > 0) return `${days} d ${hours % 24} h`
  if (hours > 0) return `${hours} h ${minutes % 60} min`
  return minutes > 0 ? `${minutes} min` : `${Math.max(0, Math.floor(seconds))} s`
}

export function milliseconds(ms) {
  return ms < 1000 ? number(ms, 0, ' ms') : number(ms / 1000, 1, ' s')
}

/** The time of day; `time` in milliseconds since the epoch. */
export function clockTime(time) {
  return new Date(time).toLocaleTimeString('en-GB')
}

/** One form for `Jan 1 2000` and `2000-01-03`; what is no date stays as it is. */
export function shortDate(text) {
  const date = new Date(`${text} UTC`)
  return Number.isNaN(date.getTime()) ? text : date.toISOString().slice(0, 10)
}
