import { subscribe } from 'ringside-hub/client'

/**
 * Keeps what a page shows equal to its source of truth: events change it, and after a gap it is loaded whole again.
 *
 * - `load()`: resolves with the whole, from your own API.
 * - `apply(whole, event)`: the whole with an event in it. It must do no harm to apply an event that the whole has already:
 *   an event that comes while it loads may be in it or not.
 * - `show(whole)`: after each change.
 */
export function follow(topics, { load, apply, show, ...options }) {
  let whole
  /** What comes while it loads: it goes on top of what is loaded. */
  let meanwhile
  let attempt = 0

  async function reload() {
    const mine = ++attempt
    meanwhile = []
    for (let wait = 500; ; wait = Math.min(wait * 2, 30_000)) {
      try {
        const loaded = await load()
        if (mine !== attempt) return // another gap has come meanwhile, or the end
        whole = meanwhile.reduce(apply, loaded)
        meanwhile = undefined
        return show(whole)
      } catch {
        await new Promise(resolve => setTimeout(resolve, wait * Math.random()))
        if (mine !== attempt) return
      }
    }
  }

  let live = false
  const subscription = subscribe(topics, {
    ...options,
    onEvent(event) {
      meanwhile?.push(event)
      if (whole === undefined) return
      whole = apply(whole, event)
      show(whole)
    },
    onGap: reload,
    onState(state, why) {
      options.onState?.(state, why)
      // the stream first, and then the whole: between the two nothing is missed
      if (live || (state !== 'live' && state !== 'polling')) return
      live = true
      void reload()
    }
  })
  return () => {
    attempt++
    subscription.close()
  }
}
