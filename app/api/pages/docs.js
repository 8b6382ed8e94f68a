// Fetches the OpenAPI document with the session's cookie, else with a token that the page asks for, and shows it.
"use strict";

const DOCUMENT = "/api/openapi.json";
const ask = document.getElementById("ask");
const refused = document.getElementById("refused");

async function load(headers) {
  const answer = await fetch(DOCUMENT, { headers, credentials: "same-origin" });
  return answer.ok ? answer.json() : null;
}

async function csrfHeaders() {
  const answer = await fetch("/api/auth/session", { credentials: "same-origin" });
  const token = answer.ok ? (await answer.json()).csrf_token : null;
  return token ? { "X-CSRF-Token": token } : {};
}

function show(spec, headers) {
  ask.hidden = true;
  SwaggerUIBundle({
    spec,
    domNode: document.getElementById("shown"),
    deepLinking: true,
    persistAuthorization: false,
    validatorUrl: null,
    requestInterceptor: (request) => {
      // Only to ourselves: the credential is nobody else's.
      if (new URL(request.url, location.href).origin === location.origin) Object.assign(request.headers, headers);
      return request;
    },
  });
}

ask.addEventListener("submit", async (event) => {
  event.preventDefault();
  const headers = { Authorization: "Bearer " + document.getElementById("token").value };
  const spec = await load(headers);
  if (spec) show(spec, headers);
  else refused.textContent = "This credential was refused.";
});

load({}).then(async (spec) => {
  if (spec) show(spec, await csrfHeaders());
  else ask.hidden = false;
});
