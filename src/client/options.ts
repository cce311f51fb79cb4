import { addressOf, type OnToken, type State, type Why } from './reconnect.ts'
import { checkTime } from './timer.ts'

export interface ConnectOptions {
  /** Where the server is: absolute, or as seen from the page. Default `/`. */
  readonly url?: string | URL | undefined
  /** A JWT. It goes into the address (`?token=`), because a page can give a WebSocket no headers. */
  readonly token?: string | undefined
  /** Asked for another token when the server says that the last one is no longer good. */
  readonly onToken?: OnToken | undefined
  /** `connecting`, `live`, `stale`, `offline` or `closed`. Not called for `close()`. */
  readonly onState?: ((state: State, why?: Why) => void) | undefined
  /** A sign of life every so many seconds: after two and a half without any, the connection is dead. Default 15. */
  readonly heartbeat?: number | undefined
  /** The WebSocket to use where there is no global one, as in Node.js 20: that of the package `ws`, for instance. */
  readonly WebSocket?: (new (url: string, protocol: string) => object) | undefined
}

export interface PublishOptions {
  readonly type?: string | undefined
  /** Makes it safe to send it again, for 10 minutes. Default: a random one. */
  readonly key?: string | undefined
}

/** Throws a `TypeError` for what is wrong, so that the caller is told. */
export function checkOptions({ url, heartbeat }: ConnectOptions): void {
  addressOf('ws', url)
  checkTime('heartbeat', heartbeat, 1)
}
