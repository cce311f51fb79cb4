import type { Measured } from '../metrics.ts'

/** What the supervisor says to a worker: stop, tell what you have measured, or here is what all have. */
export type Order =
  | { readonly order: 'stop' }
  | { readonly order: 'measure'; readonly id: number }
  | { readonly order: 'scraped'; readonly id: number; readonly text: string }

/**
 * What a worker says to the supervisor: here is what I have counted so far, here is what I have measured (you have asked),
 * tell me what all have measured, or this is why I can't start.
 */
export type Word =
  | { readonly word: 'counted'; readonly counts: Measured }
  | { readonly word: 'measured'; readonly id: number; readonly measured: Measured }
  | { readonly word: 'scrape'; readonly id: number }
  | { readonly word: 'failed'; readonly why: string }

/** The signals that stop the server. With several processes the supervisor alone heeds them: a terminal tells them all. */
export const STOP_SIGNALS = ['SIGINT', 'SIGTERM'] as const
