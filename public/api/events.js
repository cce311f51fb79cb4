/**
 * Reads events from the text of a stream, part by part; undefined where a content type is none of a stream. Of what the
 * server tells of itself nothing is left out: who tries a stream sees all that comes.
 */
export function readerOf(contentType) {
  if (contentType.startsWith('text/event-stream')) return sseReader()
  if (contentType.startsWith('application/x-ndjson')) return ndjsonReader()
  return undefined
}

function lineReader() {
  let rest = ''
  return text => {
    // a CR at the end may be one half of a line's end
    const lines = (rest + text).split(/\r\n|\n|\r(?!$)/)
    rest = lines.pop()
    return lines
  }
}

/** WHATWG HTML, section 9.2.6. */
function sseReader() {
  const linesOf = lineReader()
  let block = {}
  let id = ''
  return text =>
    linesOf(text).flatMap(line => {
      if (line === '') {
        const { event = 'message', data } = block
        block = {}
        return data === undefined ? [] : [{ type: event, id, data }]
      }
      const [, field, value] = /^([^:]*):? ?(.*)$/.exec(line)
      if (field === 'id') id = value
      else if (field === 'data') block.data = block.data === undefined ? value : `${block.data}\n${value}`
      else if (field === 'event') block.event = value
      return []
    })
}

/** An event a line; an empty one is a heartbeat. */
function ndjsonReader() {
  const linesOf = lineReader()
  return text =>
    linesOf(text)
      .filter(Boolean)
      .map(line => {
        const { type, id = '', data, ...rest } = JSON.parse(line)
        return { type, id, data: JSON.stringify(data === undefined ? rest : data) }
      })
}
