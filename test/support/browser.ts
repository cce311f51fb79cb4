import axe from 'axe-core'
import { existsSync } from 'node:fs'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { chromium, type Browser, type Page } from 'playwright-core'
import { reset } from './reset.ts'

export interface Launch {
  /** Pages that are left go into the back-forward cache, as they do for people. Playwright has no such cache by default. */
  readonly keepsPages?: boolean
}

/** Starts Chromium, from `$CHROMIUM` or where Debian puts it. */
export async function launchChromium({ keepsPages = false }: Launch = {}): Promise<Browser> {
  const executablePath = process.env['CHROMIUM'] ?? '/usr/bin/chromium'
  if (!existsSync(executablePath)) {
    throw new Error(
      `the browser tests need Chromium: there is none at ${executablePath}; install it or set CHROMIUM`
    )
  }
  return chromium.launch({
    executablePath,
    ...(keepsPages && { ignoreDefaultArgs: ['--disable-back-forward-cache'] }),
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync'
    ]
  })
}

/** A TCP proxy on a free loopback port, whose connections can be cut or made to fall silent. */
export class Proxy {
  readonly #server = createServer(client => this.#join(client))
  readonly #target: number
  readonly #pairs = new Set<readonly [Socket, Socket]>()
  readonly #streams = new Set<readonly [Socket, Socket]>()
  #waiting: Socket[] | null = null

  constructor(target: number) {
    this.#target = target
  }

  /** Begins to listen; answers where. */
  async listen(): Promise<string> {
    await new Promise<void>(resolve => this.#server.listen(0, '127.0.0.1', resolve))
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  /** Breaks all connections at once, as a network does; new ones wait until `restore`. */
  cut(): void {
    this.#waiting ??= []
    for (const [client, upstream] of this.#pairs) {
      reset(client)
      upstream.destroy()
    }
  }

  /** Passes nothing more from the server on the event streams that are open now, without a word: a dead peer. */
  silence(): void {
    for (const [client, upstream] of this.#streams) {
      upstream.unpipe(client)
      upstream.resume()
    }
  }

  /** Lets the connections through that wait since `cut`. */
  restore(): void {
    const waiting = this.#waiting ?? []
    this.#waiting = null
    for (const client of waiting) this.#join(client)
  }

  async close(): Promise<void> {
    const closed = new Promise(resolve => this.#server.close(resolve))
    this.cut()
    for (const client of this.#waiting ?? []) client.destroy()
    await closed
  }

  #join(client: Socket): void {
    client.on('error', () => {}) // 'close' follows
    if (this.#waiting) return void this.#waiting.push(client)
    if (client.destroyed) return
    const upstream = connect(this.#target, '127.0.0.1')
    const pair = [client, upstream] as const
    this.#pairs.add(pair)
    upstream.on('data', bytes => {
      if (bytes.includes('content-type: text/event-stream')) this.#streams.add(pair)
    })
    upstream.on('error', () => {})
    client.on('close', () => upstream.destroy())
    upstream.on('close', () => {
      client.destroy()
      this.#pairs.delete(pair)
      this.#streams.delete(pair)
    })
    client.pipe(upstream).pipe(client)
  }
}

/** The ids on a stream, read with nothing of the page's code, up to and with `last`. */
export async function idsOnStream(url: string, last: string): Promise<string[]> {
  const abort = new AbortController()
  const response = await fetch(url, { headers: { accept: 'text/event-stream' }, signal: abort.signal })
  const ids: string[] = []
  let rest = ''
  try {
    for await (const part of response.body!.pipeThrough(new TextDecoderStream())) {
      const blocks = (rest + part).split('\n\n')
      rest = blocks.pop()!
      for (const block of blocks) {
        const id = /^id: (.*)$/m.exec(block)?.[1]
        if (!id || !/^data:/m.test(block) || /^event: cursor$/m.test(block)) continue
        ids.push(id)
        if (id === last) return ids
      }
    }
    throw new Error(`the stream ended before ${last}`)
  } finally {
    abort.abort()
  }
}

/** What axe finds wrong with a page as it is shown now, or with a part of it, by all of its rules or some. */
export async function violationsOf(
  page: Page,
  rules?: readonly string[],
  within = 'html'
): Promise<string[]> {
  await page.evaluate(axe.source)
  const options = rules ? { runOnly: rules } : {}
  return page.evaluate(
    `axe.run(${JSON.stringify(within)}, ${JSON.stringify(options)}).then(({ violations }) => violations.map(({ id, nodes }) => id + ': ' + nodes.map(({ html }) => html).join()))`
  )
}
