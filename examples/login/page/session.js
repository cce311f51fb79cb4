/** Who is signed in on this page, with a cookie that is renewed for as long as the page is open. */
let timer

/** POSTs, and throws what the server has against it. */
export async function post(path, body) {
  const response = await fetch(path, {
    method: 'POST',
    headers: body ? { 'content-type': 'application/json' } : {},
    body: JSON.stringify(body)
  })
  const answer = response.status === 204 ? {} : await response.json()
  if (!response.ok) throw Object.assign(new Error(answer.detail), { status: response.status })
  return answer
}

/**
 * Sets the cookie anew, and again before it runs out: a stream that ends with its token comes back with the next one.
 * Gives the user.
 */
export async function renew() {
  const { user, seconds } = await post('/token')
  clearTimeout(timer)
  timer = setTimeout(() => void renew().catch(() => {}), seconds * 800)
  return user
}

/** For the client: a timer stands still while a laptop sleeps; then the server asks for another token, and the cookie is it. */
export async function onToken() {
  await renew()
  return ''
}

/** The user. Who is not signed in is led to the login page, and back. */
export async function signedIn() {
  try {
    return await renew()
  } catch (error) {
    if (error.status !== 403) throw error
    location.replace(`/login/?${new URLSearchParams({ back: location.href })}`)
    return new Promise(() => {}) // this page goes away
  }
}

/** Ends the session. */
export async function signOut() {
  clearTimeout(timer)
  await post('/logout')
}
