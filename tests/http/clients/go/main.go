// Introspects a token with a public client of RFC 7662, github.com/zitadel/oidc. Prints the answer
// in one line. Run by .ci/http.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/zitadel/oidc/v3/pkg/client/rs"
	httphelper "github.com/zitadel/oidc/v3/pkg/http"
	"github.com/zitadel/oidc/v3/pkg/oidc"
)

// api is the service that introspects. Its credential is a JWT, and the stack is in the path.
type api struct{ url, jwt string }

func (a api) IntrospectionURL() string { return a.url }
func (a api) TokenEndpoint() string    { return "" }
func (a api) HttpClient() *http.Client { return http.DefaultClient }

func (a api) AuthFn() (any, error) {
	return httphelper.RequestAuthorization(func(request *http.Request) {
		request.Header.Set("Authorization", "Bearer "+a.jwt)
	}), nil
}

func main() {
	url := os.Getenv("API") + "/oauth2/introspect/" + os.Getenv("STACK")
	resource := api{url, os.Getenv("JWT")}
	ctx := context.Background()
	answer, err := rs.Introspect[*oidc.IntrospectionResponse](ctx, resource, os.Getenv("TOKEN"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	scope, audience := strings.Join(answer.Scope, " "), strings.Join(answer.Audience, " ")
	fmt.Println(answer.Active, scope, answer.Subject, audience)
}
