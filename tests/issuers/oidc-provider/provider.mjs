// An OpenID provider that gives JWTs to clients by client_credentials. The resource decides the
// audience, and the algorithm: RS256 if it ends in `?rs256`, otherwise ES256. Prints its issuer once
// it listens, and replaces its ES256 key when it reads a line.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import Provider from 'oidc-provider';

const port = Number(process.env.PORT);
const issuer = `http://127.0.0.1:${port}`;

function key(pair, alg, kid) {
  return { ...pair.privateKey.export({ format: 'jwk' }), alg, kid, use: 'sig' };
}

const rsa = key(generateKeyPairSync('rsa', { modulusLength: 2048 }), 'RS256', 'rsa');

function client(id) {
  return {
    client_id: id,
    client_secret: `secret-of-${id}`,
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
  };
}

function provider(kid) {
  const ec = key(generateKeyPairSync('ec', { namedCurve: 'P-256' }), 'ES256', kid);
  return new Provider(issuer, {
    jwks: { keys: [ec, rsa] },
    clients: [client('importer'), client('stranger')],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => 'https://tokens.example.com/workloads',
        getResourceServerInfo: (_, resource) => ({
          scope: '',
          audience: resource.replace(/[?].*/, ''),
          accessTokenTTL: 120,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: resource.endsWith('?rs256') ? 'RS256' : 'ES256' } },
        }),
      },
    },
  });
}

let answer = provider('first').callback();
createServer((request, response) => answer(request, response)).listen(port, '127.0.0.1', () =>
  console.log(issuer),
);
createInterface({ input: process.stdin }).on('line', (kid) => {
  answer = provider(kid).callback();
  console.log(issuer);
});
