/**
 * What Swagger UI lacks at `/docs`: it shows an answer once it has ended, which a stream does not. A plugin of it, and a
 * script of its own (`dist/docs`), for it has to be there before Swagger UI starts.
 */
import { openStream } from './api/stream.js'
import { viewsOf } from './api/views.js'

/** Swagger UI calls it once, with all that it offers to plugins. */
export function streams(system) {
  /** The newest stream of each operation that was tried. */
  const tried = new Map()
  const keyOf = (path, method) => `${method} ${path}`
  const { Tried, WebSocketTry } = viewsOf(system.React)
  const h = system.React.createElement

  /** As Swagger UI asks for it, with the parameters and the authorisation that were typed there. */
  const execute = original => request => {
    const key = keyOf(request.pathName, request.method)
    tried.get(key)?.stop()
    tried.delete(key)
    const userFetch = (url, init) => openStream(url, init, stream => tried.set(key, stream))
    return original({ ...request, userFetch })
  }

  const LiveResponse = Original => props =>
    h(
      'div',
      null,
      h(Tried, { response: props.response, stream: tried.get(keyOf(props.path, props.method)) }),
      h(Original, props)
    )

  const tokenOf = authorized =>
    authorized.getIn(['bearer', 'value']) ?? authorized.getIn(['query', 'value']) ?? ''

  const InfoContainer = Original => props =>
    h(
      'div',
      null,
      h(Original, props),
      h(WebSocketTry, { readToken: () => tokenOf(system.getSystem().authSelectors.authorized()) })
    )

  return {
    statePlugins: { spec: { wrapActions: { executeRequest: execute } } },
    wrapComponents: { liveResponse: LiveResponse, InfoContainer }
  }
}
