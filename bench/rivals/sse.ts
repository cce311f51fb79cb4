/** What the bare servers send: byte for byte what Ringside does, so that only the way there is compared. */

export const STREAM_HEAD = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache, no-transform'
}

let lastMs = 0
let lastSeq = 0

/** An id as Ringside has them. */
export function nextId(): string {
  const now = Date.now()
  lastSeq = now > lastMs ? 0 : lastSeq + 1
  lastMs = Math.max(now, lastMs)
  return `${lastMs}-${lastSeq}`
}

export function frameOf(data: string): string {
  return `id: ${nextId()}\ndata: ${data}\n\n`
}

export function chunkOf(frames: string): string {
  return `${frames.length.toString(16)}\r\n${frames}\r\n`
}
