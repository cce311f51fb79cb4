import { isRingside, reasonOf, saidOf, type Reply, type Way } from './way.ts'

/** What whoever asks may do on the topic of the doctor: `true`, or why not. */
export interface Rights {
  readonly read: true | string
  readonly publish: true | string
  /** Why Ringside doesn't take the token. */
  readonly refusal: string | undefined
}

/**
 * What was met at the end of the way: Ringside (`unready`: why it can't serve); something that answers for it; nobody, or
 * somebody else.
 */
export type Met =
  | { readonly kind: 'Ringside'; readonly rights: Rights; readonly unready: string | undefined }
  | { readonly kind: 'away'; readonly detail: string }
  | { readonly kind: 'stranger'; readonly detail: string }

/** What a proxy says when it reaches nobody. */
const AWAY = [502, 503, 504]

/** Finds out who is there, which version of HTTP is spoken, and what may be done. */
export async function survey(way: Way): Promise<Met> {
  try {
    if (way.isSecure) way.version = await way.negotiate()
    const path = way.eventsPath('limit=1')
    const read = await way.ask({ path, headers: { accept: 'application/json' } })
    if (isRingside(read)) {
      const unready = [200, 401, 403].includes(read.status) ? undefined : saidOf(read)
      return { kind: 'Ringside', rights: await rightsOf(way, read), unready }
    }
    if (AWAY.includes(read.status))
      return { kind: 'away', detail: `nobody is there: something on the way answers ${read.status} for it` }
    const { location } = read.headers
    return {
      kind: 'stranger',
      detail: location
        ? `it is not at ${way.options.url}, but at ${location}`
        : `${way.address(path).href} is answered ${read.status}: it is no Ringside`
    }
  } catch (error) {
    return { kind: 'stranger', detail: unanswered(error) }
  }
}

function unanswered(error: unknown): string {
  const { code = '' } = error as NodeJS.ErrnoException
  if (!/CERT|SIGNED|UNABLE_TO_VERIFY/.test(code)) return `nobody answers: ${reasonOf(error)}`
  return `its certificate is not trusted here: ${reasonOf(error)} (NODE_EXTRA_CA_CERTS names a file with who has signed it)`
}

/** `read`: the answer to whoever has asked for a page of the topic. */
async function rightsOf(way: Way, read: Reply): Promise<Rights> {
  const claims = (name: 'subscribe' | 'publish', { status }: Reply) =>
    `needs a token whose ringside.${name} covers ${way.topic}, as "doctor/*" does (${status})`
  // this type is refused, and before it whoever may not publish: nothing is stored
  const publish = await way.ask({ path: way.eventsPath('type=cursor'), method: 'POST', body: 'x' })
  const refused = [read, publish].find(({ status }) => status === 401)
  const hasToken = way.options.token !== undefined
  return {
    read: read.status === 401 || read.status === 403 ? claims('subscribe', read) : true,
    publish: publish.status === 422 ? true : claims('publish', publish),
    refusal: hasToken && refused ? saidOf(refused) : undefined
  }
}
