import type { BrowserContext, Page } from 'playwright-core'
import type { ConnectOptions, State, SubscribeOptions, Why } from '../../src/client/client.ts'
import type { Address } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'

/** A page that subscribes by the client that the server hands out. */
export class Tab {
  readonly page: Page
  readonly errors: string[] = []

  constructor(page: Page) {
    this.page = page
    page.on('pageerror', error => this.errors.push(error.message))
  }

  /** Subscribes; what comes is in `got`, the numbers of EventSources and fetches so far in `sources` and `fetches`. */
  async subscribe(
    topics: readonly string[],
    options: Partial<SubscribeOptions>,
    onEvent = ''
  ): Promise<void> {
    await this.page.evaluate(`import('/client.js').then(({ subscribe }) => {
      window.got = []
      window.gaps = []
      window.states = []
      window.subscription = subscribe(${JSON.stringify(topics)}, {
        ...${JSON.stringify(options)},
        onEvent(event) {
          got.push(event)
          ${onEvent}
        },
        onGap: gap => gaps.push(gap),
        onState: (state, why) => states.push({ state, why })
      })
    })`)
  }

  /** Connects by a WebSocket, and subscribes; the connection is `hub`, and what comes is in `got`. */
  async connect(topics: readonly string[], options: Partial<ConnectOptions> = {}): Promise<void> {
    await this.page.evaluate(`import('/client.js').then(async ({ connect }) => {
      Object.assign(window, { got: [], gaps: [], states: [] })
      window.hub = connect({
        ...${JSON.stringify(options)},
        onState: (state, why) => states.push({ state, why })
      })
      window.subscription = await hub.subscribe(${JSON.stringify(topics)}, {
        onEvent: event => got.push(event),
        onGap: gap => gaps.push(gap)
      })
    })`)
  }

  /** Stops its clock, until it is moved by `forward`. */
  async hold(): Promise<void> {
    await this.page.clock.install()
    await this.page.clock.pauseAt(Date.now() + 1000)
  }

  async forward(ms: number): Promise<void> {
    await this.page.clock.runFor(ms)
  }

  evaluate<T>(expression: string): Promise<T> {
    return this.page.evaluate<T>(expression)
  }

  /**
   * Waits until an expression is true in the page. It is asked from here: what asks inside the page would have to compile
   * the expression there, which the page's policy forbids.
   */
  async until(expression: string): Promise<void> {
    try {
      await eventually(() => this.evaluate(expression), Boolean, expression)
    } catch (error) {
      const have = await this.page.evaluate('JSON.stringify([got.slice(-3), gaps, states.slice(-6)])')
      throw new Error(`waited in vain for ${expression}; have: ${String(have)}`, { cause: error })
    }
  }

  isIn(state: State): Promise<void> {
    return this.until(`window.subscription?.state === '${state}'`)
  }

  /** Resolves with the data of all that has come, once the last of it is this. */
  async dataUntil<Data>(last: Data): Promise<Data[]> {
    await this.until(`got.some(({ data }) => data === ${JSON.stringify(last)})`)
    return this.evaluate('got.map(({ data }) => data)')
  }

  async events(): Promise<{ topic: string; data: unknown }[]> {
    return this.evaluate('got.map(({ topic, data }) => ({ topic, data }))')
  }

  states(): Promise<{ state: State; why?: Why }[]> {
    return this.evaluate('states')
  }
}

/** Counts EventSources and fetches, and lets a tab be deaf to the others, and its time pass faster. */
const INIT = `{
  const { EventSource, BroadcastChannel, fetch, setTimeout } = window
  window.setTimeout = (callback, ms, ...args) => setTimeout(callback, ms / (window.speed ?? 1), ...args)
  window.sources = 0
  window.EventSource = class extends EventSource {
    constructor(...args) {
      super(...args)
      sources++
    }
  }
  window.fetches = 0
  window.fetch = (...args) => {
    if (args[1]?.method !== 'HEAD') fetches++ // which only asks whether it may
    return fetch(...args)
  }
  window.BroadcastChannel = class extends BroadcastChannel {
    set onmessage(listener) {
      super.onmessage = event => window.deaf || listener(event)
    }
  }
}`

/** A blank page of a server's origin. */
export async function newTab(context: BrowserContext, { url }: Pick<Address, 'url'>): Promise<Tab> {
  const tab = new Tab(await context.newPage())
  await tab.page.addInitScript(INIT)
  await tab.page.goto(`${url}/livez`)
  return tab
}
