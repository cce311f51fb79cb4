import type { FastifyBaseLogger } from 'fastify'
import type { Metrics, Rejection } from '../metrics.ts'
import type { Notices } from './notices.ts'

/** What each reason means, and what can be done. */
const MEANINGS: Record<Rejection, string> = {
  full: 'all connections are taken (MAX_CONNECTIONS)',
  sockets: 'there are as many sockets as the descriptors allow (ulimit -n)',
  idle_sockets: 'an address has more sockets than it may on which nothing is asked',
  client_connections: 'a client has all connections that it may have (MAX_CONNECTIONS_PER_CLIENT)',
  client_rate: 'a client opens more streams a second than it may (CONNECT_RATE)',
  topic_subscribers: 'a topic has all subscribers that it may have (TOPICS, maxSubscribers)',
  unavailable: 'the store, or the key server, does not answer',
  shutdown: 'the server is stopping',
  expired: 'tokens ran out as streams were opened',
  forbidden: 'they may not read'
}

/** What is no client's own doing: somebody should look at it. */
const ALARMING: readonly Rejection[] = ['full', 'sockets']

/** Clients that were turned away: counted, and told to the log by their reasons, each at most once a minute. */
export class TurnedAway {
  readonly #metrics: Metrics
  readonly #notices: Notices
  readonly #log: FastifyBaseLogger

  constructor(metrics: Metrics, notices: Notices, log: FastifyBaseLogger) {
    this.#metrics = metrics
    this.#notices = notices
    this.#log = log
  }

  /** One was turned away. */
  count(reason: Rejection): void {
    this.#metrics.connectionsRejected.inc({ reason })
    this.#notices.note(`turned away ${reason}`, count => {
      const level = ALARMING.includes(reason) ? 'warn' : 'info'
      this.#log[level]({ reason, count }, `turned away ${count}: ${MEANINGS[reason]}`)
    })
  }
}
