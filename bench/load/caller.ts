import { Agent, request } from 'node:http'

export interface Answer {
  /** From the request to the last byte of its answer. */
  readonly milliseconds: number
  readonly body: string
}

/** Asks one thing after another on one connection, which is kept alive. */
export class Caller {
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1, noDelay: true })
  readonly #port: number

  constructor(port: number) {
    this.#port = port
  }

  /** Throws when the answer is another than 200. */
  get(path: string, headers: Record<string, string> = {}): Promise<Answer> {
    const started = performance.now()
    return new Promise((resolve, reject) => {
      const call = request({ host: '127.0.0.1', port: this.#port, path, headers, agent: this.#agent })
      call.on('error', reject).on('response', response => {
        let body = ''
        response.setEncoding('latin1').on('data', (text: string) => (body += text))
        response.on('error', reject).on('end', () => {
          const milliseconds = performance.now() - started
          if (response.statusCode === 200) resolve({ milliseconds, body })
          else reject(new Error(`${path} was answered ${response.statusCode}: ${body.slice(0, 500)}`))
        })
      })
      call.end()
    })
  }

  /** Drops what is being asked; it may be used again. */
  stop(): Promise<void> {
    this.#agent.destroy()
    return Promise.resolve()
  }
}
