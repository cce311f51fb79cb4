/** A block of text/event-stream: what stands between two empty lines. */
export interface Frame {
  comment?: string
  retry?: number
  id?: string
  /** The `event:` field; a message has none. */
  event?: string
  data?: string
}

const FIELDS = ['retry', 'id', 'event', 'data'] as const

/**
 * Reads text/event-stream as Ringside writes it, and throws for whatever the standard would let a client pass over:
 * broken UTF-8, a line end that is not LF, an unknown field, a field without its space, a field twice, an empty block, and a
 * line behind the id of its block.
 */
export class StrictParser {
  readonly #decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
  #text = ''

  push(bytes: Uint8Array): Frame[] {
    this.#text += this.#decoder.decode(bytes, { stream: true })
    if (this.#text.includes('\r'))
      throw new Error(`a CR in the stream: ${JSON.stringify(this.#text.slice(0, 200))}`)
    const blocks = this.#text.split('\n\n')
    this.#text = blocks.pop()!
    return blocks.map(parseBlock)
  }

  /** The stream must end between two blocks. */
  end(): void {
    this.#decoder.decode()
    if (this.#text !== '')
      throw new Error(`the stream ends within a block: ${JSON.stringify(this.#text.slice(-200))}`)
  }
}

function parseBlock(block: string): Frame {
  const frame: Frame = {}
  const data: string[] = []
  for (const line of block.split('\n')) {
    if (frame.id !== undefined) throw new Error(`a line behind the id: ${JSON.stringify(block)}`)
    if (line.startsWith(':')) {
      frame.comment = line.slice(1)
      continue
    }
    const [, name, value] = /^([a-z]+): (.*)$/su.exec(line) ?? []
    if (name === 'data') data.push(value!)
    else if (!isField(name) || frame[name] !== undefined)
      throw new Error(`a wrong line: ${JSON.stringify(line)}`)
    else if (name === 'retry') frame.retry = digits(value!)
    else frame[name] = value!
  }
  if (data.length > 0) frame.data = data.join('\n')
  if (frame.data === undefined && frame.event !== undefined)
    throw new Error(`an event without data: ${block}`)
  return frame
}

function isField(name: string | undefined): name is (typeof FIELDS)[number] {
  return FIELDS.some(field => field === name)
}

function digits(text: string): number {
  if (!/^\d+$/.test(text)) throw new Error(`retry is no number: ${text}`)
  return Number(text)
}
