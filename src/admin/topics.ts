/** Where the instances of a hub ask each other. */
export const EXCHANGE = '$ringside/exchange'

/** What happens, for who operates the server: told once a second, for as long as somebody listens. Nothing of it is stored. */
export const LIVE = {
  /** How an instance does: one event for each of them. */
  instances: '$ringside/instances',
  /** What connections an instance has, in numbers. */
  connections: '$ringside/connections',
  /** The busiest of what is listened to on an instance. */
  topics: '$ringside/topics',
  /** The gaps and refusals since the last event of that instance. */
  gaps: '$ringside/gaps'
} as const

export type LiveTopic = keyof typeof LIVE
